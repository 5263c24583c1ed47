"""What a restored ledger forgot, as the entry that books it again: at most once, whatever is repeated (S28). Pure."""

from __future__ import annotations

from typing import cast

from billing.ledger.booking import EntryRequest
from billing.ledger.findings import Finding
from billing.money import minor_unit_micros
from schemas.ledger import Origin

ENTRY_FORGOTTEN = "entry_forgotten"
PAYMENTS = ("payment_other_timeline", "payment_without_intent", "payment_second_of_episode")
AS_IT_WAS: tuple[Origin, ...] = ("credit", "adjustment", "goodwill", "migration")
"""Origins that an entry can have again; others are linked to what the ledger has forgotten as well, and become
adjustments."""


def booking_of(found: Finding, author: str, reason: str) -> EntryRequest | None:
    """The entry that a finding asks for; None where it names none."""
    if found.account is None:
        return None
    detail = found.detail
    if found.kind == ENTRY_FORGOTTEN and detail.get("amount_micros"):
        known = detail["origin"] in AS_IT_WAS
        origin = cast(Origin, detail["origin"]) if known else "adjustment"
        was = f"{detail['origin']} entry {found.subject}: {detail['reason']}"
        return EntryRequest(
            found.account, detail["amount_micros"], origin, _text(reason, was), author, f"forgotten:{found.subject}"
        )
    if found.kind in PAYMENTS and found.subject and detail.get("received_minor"):
        amount_micros = detail["received_minor"] * minor_unit_micros(detail["currency"])
        text = _text(reason, f"payment {found.subject}")
        return EntryRequest(found.account, amount_micros, "recharge", text, author, f"payment:{found.subject}:credit")
    return None


def _text(reason: str, was: str) -> str:
    return f"{reason} ({was})"[:500]
