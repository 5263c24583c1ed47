"""What an entry is about, in a few words, from the detail that is kept with it. Pure."""

from __future__ import annotations

import msgspec


class _Detail(msgspec.Struct):
    kind: str = ""
    session: str = ""
    rerate: int = 0
    tariff_version: int = 0
    sessions: int = 0
    recharge: int = 0
    payment: str = ""


_decode = msgspec.json.Decoder(_Detail).decode


def about(origin: str | None, detail: str | None) -> str:
    """ "call CA1", "12 sessions by tariff version 3", "payment pi_1 of recharge 7", or nothing."""
    if detail is None or origin not in ("refund", "rerate", "payment_refund", "chargeback"):
        return ""
    said = _decode(detail)
    if origin == "refund":
        return f"{said.kind} {said.session}"
    if origin == "rerate":
        return f"{said.sessions:,} session{'' if said.sessions == 1 else 's'} by tariff version {said.tariff_version}"
    return f"payment {said.payment} of recharge {said.recharge}"
