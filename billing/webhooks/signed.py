"""From a request to what it is about: the signature first, then its age, and only then is anything decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import stripe

TOLERANCE_S = 300
"""How old a signature may be, and how far ahead of our clock: what the gateway repeats, it signs anew."""

Refusal: TypeAlias = Literal["forged", "stale", "malformed"]
Kind: TypeAlias = Literal["payment", "taken_back", "other"]

_PAYMENT = "payment_intent."
_TAKEN_BACK = ("charge.refunded", "charge.refund.", "refund.", "charge.dispute.")


@dataclass(frozen=True, slots=True)
class Notice:
    """A genuine webhook. `payment` is the payment that it is about, whatever it says about it; None: about none."""

    event: str
    type: str
    kind: Kind
    payment: str | None


class _Object(msgspec.Struct):
    id: str = ""
    payment_intent: str | None = None


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    id: str
    type: str
    data: _Data


_decode = msgspec.json.Decoder(_Event).decode


def read_notice(payload: bytes, header: str | None, secrets: Sequence[str], now_s: float) -> Notice | Refusal:
    """Raises nothing, whatever came in."""
    signed_s = _signed_at(payload, header, secrets)
    if signed_s is None:
        return "forged"
    if abs(now_s - signed_s) > TOLERANCE_S:
        return "stale"
    try:
        event = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "malformed"
    return _notice(event)


def _signed_at(payload: bytes, header: str | None, secrets: Sequence[str]) -> int | None:
    """When it was signed, seconds since 1970; None where no secret of ours signed it."""
    if not header or len(header) > 2000:
        return None
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(payload, header, secret, tolerance=None)
            times = [item[2:] for item in header.split(",") if item.startswith("t=")]
            return int(times[0])  # the one that was signed: the SDK takes the first too
        except (stripe.SignatureVerificationError, ValueError, IndexError):
            continue
    return None


def _notice(event: _Event) -> Notice:
    found = event.data.object
    if event.type.startswith(_PAYMENT):
        return Notice(event.id, event.type, "payment", found.id or None)
    if event.type.startswith(_TAKEN_BACK):
        return Notice(event.id, event.type, "taken_back", found.payment_intent)
    return Notice(event.id, event.type, "other", None)
