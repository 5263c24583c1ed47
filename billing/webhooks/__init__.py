"""What the gateway tells us unasked. A webhook is a hint to look: whatever it says is read back from the gateway, so
that one that is repeated, late, out of order or old can move nothing backwards (S34). Refunds and disputes whose
webhooks never came are found by a sweep of the gateway's lists."""
