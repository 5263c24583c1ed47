"""The ledger's part in putting an account right: what its own entries prove, an entry that makes the balance store
work the account out anew, and a balance row set to what the entries say.

A view is never corrected by adding a difference: whoever applies the entry derives the account from the ledger. So the
entry may be replayed, repeated, or reach a store that was rebuilt since, and the view ends the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from billing.ledger.booking import announce
from billing.ledger.database import Connection
from billing.ledger.queries import query
from schemas.ledger import ViewCorrected


@dataclass(frozen=True, slots=True)
class Proof:
    """An account's balance row beside what its entries and its settled sessions say."""

    credit_micros: int
    used_micros: int
    ledger_seq: int
    last_charged_offset: int | None
    posted_credit_micros: int
    posted_used_micros: int
    entries: int
    last_seq: int | None
    posted_last_offset: int | None

    @property
    def whole(self) -> bool:
        """The row is what the entries say, and no entry is missing."""
        return (
            self.credit_micros == self.posted_credit_micros
            and self.used_micros == self.posted_used_micros
            and self.last_charged_offset == self.posted_last_offset
            and self.ledger_seq == self.entries == self.last_seq
        )


async def prove_account(connection: Connection, account: str) -> Proof | None:
    """What the ledger's own entries say of an account; None when it has none of that name."""
    row = await connection.fetchrow(query("findings.proof"), account)
    return None if row is None else Proof(**row)


async def correct_view(
    connection: Connection, account: str, *, finding: int, delta_micros: int, author: str, reason: str
) -> int | None:
    """Book that the balance store must work the account out anew, in the caller's transaction. No money moves.
    Returns its ledger_seq, None when there is no such account."""
    row = await connection.fetchrow(query("accounts.lock"), account)
    if row is None:
        return None
    seq: int = row["ledger_seq"] + 1
    detail = msgspec.json.encode({"finding": finding, "delta_micros": delta_micros}).decode()
    await connection.fetchval(
        query("booking.insert_entry"), account, seq, "view_corrected", None, author, reason, None, None, detail, None
    )
    await connection.execute(query("booking.move"), account, 0, seq)
    entry = ViewCorrected(
        account=account,
        ledger_seq=seq,
        timeline=row["timeline"],
        finding=str(finding),
        delta_micros=delta_micros,
        author=author[:500],
        reason=reason[:500],
    )
    await announce(connection, row["home_partition"], entry)
    return seq


async def recompute(connection: Connection, account: str, *, finding: int, author: str, reason: str) -> None:
    """Set an account's balance row to what its entries say, in the caller's transaction. The row is a sum of entries,
    so nothing that was booked changes (R6)."""
    await connection.fetchrow(query("accounts.lock"), account)
    await connection.execute(query("findings.recompute"), account, finding, author, reason)
