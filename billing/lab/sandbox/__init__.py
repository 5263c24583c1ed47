"""A development stand-in for Stripe's HTTP API, as far as recharge uses it: stateful, durable, faults on demand."""
