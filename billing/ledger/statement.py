"""An account's statement of a month: what the books say, by booking time, in UTC.

A month is what was booked in it: late usage books into the open month, so a month that is final never changes. Sessions
that cost nothing are in no entry and so on no statement; `billing usage` lists them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from billing.ledger.about import about
from billing.ledger.database import Pool, lease
from billing.ledger.queries import query
from billing.ledger.terms import NoSuchAccount, is_id

Section: TypeAlias = Literal["calls", "messages", "items", "archived", "recharges", "credits", "corrections"]
SECTIONS: tuple[Section, ...] = ("calls", "messages", "items", "archived", "recharges", "credits", "corrections")
State: TypeAlias = Literal["future", "open", "closing", "final"]

CLOSING = timedelta(minutes=10)
"""An entry bears the time at which its transaction began; none takes longer than this."""
READ_TIMEOUT_S = 120.0
_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Month:
    """From the first moment of a month to the first of the next, in UTC."""

    name: str
    begin: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Month | None:
        """ "2026-10"; None for anything else."""
        match = _MONTH.fullmatch(text)
        if match is None or not 1970 <= int(match[1]) <= 9998:
            return None
        begin = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        return cls(text, begin, (begin + timedelta(days=31)).replace(day=1))

    def state(self, now: datetime) -> State:
        """Whether more can still be booked into it."""
        if now < self.begin:
            return "future"
        if now < self.end:
            return "open"
        return "closing" if now < self.end + CLOSING else "final"


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Charged sessions of one destination; `quantity` is seconds (call), segments (sms, mms) or units (item). Amounts,
    here and below, are what they changed the balance by: usage is below 0. What is archived has an amount alone."""

    section: Section
    kind: str
    direction: str
    destination: str
    description: str
    sessions: int
    quantity: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class EntryLine:
    """One entry. `about` is the session, payment or number of sessions that it is about; `corrects` the entry that it
    corrects."""

    section: Section
    booked_at: datetime
    entry: int
    kind: str
    about: str
    corrects: int | None
    author: str
    reason: str
    amount_micros: int


Line: TypeAlias = UsageLine | EntryLine


@dataclass(frozen=True, slots=True)
class Statement:
    """opening + lines = closing, checked when it was made."""

    account: str
    currency: str
    month: Month
    state: State
    opening_micros: int
    lines: tuple[Line, ...]
    closing_micros: int

    def section(self, name: Section) -> list[Line]:
        return [line for line in self.lines if line.section == name]


class DoesNotAddUp(Exception):
    """The books contradict themselves; `billing ledger verify` says where."""


async def statement(pool: Pool, account: str, month: Month) -> Statement | NoSuchAccount:
    """The statement of one snapshot. Raises DoesNotAddUp, and what asyncpg raises."""
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(f"set local statement_timeout = {int(READ_TIMEOUT_S * 1000)}")
        found = await connection.fetchrow(query("accounts.show"), account) if is_id(account) else None
        if found is None:
            return NoSuchAccount(account)
        # backwards from the balance: the newer the month, the less there is to look at
        balance = found["credit_micros"] - found["used_micros"]
        opening, closing = [
            balance - await connection.fetchval(query("statement.booked_since"), account, at, timeout=READ_TIMEOUT_S)
            for at in (month.begin, month.end)
        ]
        span = (account, month.begin, month.end)
        usage = await connection.fetch(query("statement.usage"), *span, timeout=READ_TIMEOUT_S)
        entries = await connection.fetch(query("statement.entries"), *span, timeout=READ_TIMEOUT_S)
        archived = await connection.fetchval(query("statement.archived"), *span, timeout=READ_TIMEOUT_S)
        now = await connection.fetchval(query("statement.clock"))
    lines: list[Line] = [_usage_line(row) for row in usage]
    if archived:
        lines.append(UsageLine("archived", "archived", "", "", "usage whose sessions are archived", 0, 0, archived))
    lines += [_entry_line(row) for row in entries]
    total = sum(line.amount_micros for line in lines)
    if opening + total != closing or (opening and month.begin <= found["opened_at"]):
        raise DoesNotAddUp(f"{month.name} of account {account}: opening {opening}, {total} booked, closing {closing}")
    return Statement(account, found["currency"], month, month.state(now), opening, tuple(lines), closing)


_SECTION_OF_USAGE: dict[str, Section] = {"call": "calls", "sms": "messages", "mms": "messages", "item": "items"}
_SECTION_OF_ORIGIN: dict[str, Section] = {
    "recharge": "recharges",
    "credit": "credits",
    "goodwill": "credits",
    "migration": "credits",
}


def _usage_line(row: Any) -> UsageLine:
    return UsageLine(
        section=_SECTION_OF_USAGE[row["kind"]],
        kind=row["kind"],
        direction=row["direction"],
        destination=row["matched"],
        description=row["description"],
        sessions=row["sessions"],
        quantity=row["quantity"],
        amount_micros=row["amount_micros"],
    )


def _entry_line(row: Any) -> EntryLine:
    kind = "opening credit" if row["kind"] == "opened" else row["origin"].replace("_", " ")
    return EntryLine(
        section="credits" if row["kind"] == "opened" else _SECTION_OF_ORIGIN.get(row["origin"], "corrections"),
        booked_at=row["booked_at"],
        entry=row["entry"],
        kind=kind,
        about=about(row["origin"], row["detail"]),
        corrects=row["corrects"],
        author=row["author"],
        reason=row["reason"],
        amount_micros=row["amount_micros"],
    )
