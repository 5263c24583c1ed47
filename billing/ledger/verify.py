"""Checking the books: each rule that the ledger promises, over everything, in one snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from billing.ledger.database import Connection, Pool, lease
from billing.ledger.queries import query

CHECKS = (
    "books_sum_to_zero",
    "entries_sum_to_zero",
    "postings_have_entries",
    "balances_equal_postings",
    "used_equals_usage",
    "usage_equals_journal",
    "entries_are_in_sequence",
    "outbox_is_the_tail",
    "accounts_are_whole",
    "usage_is_in_place",
    "dead_letters_are_in_place",
    "recharges_are_booked",
    "corrections_equal_entries",
    "corrections_fit_usage",
    "corrected_entries_are_there",
    "archives_add_up",
)
"""In order; each is described beside its query in sql/verify.sql."""

CHECK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Check:
    """`violations` is how many things break the rule, `example` one of them."""

    name: str
    violations: int
    example: str | None

    @property
    def passed(self) -> bool:
        return self.violations == 0


Progress = Callable[[Check], None]


def silent(_check: Check) -> None:
    """No progress wanted."""


async def verify(pool: Pool, progress: Progress = silent) -> list[Check]:
    """Every check, on one REPEATABLE READ snapshot, while the ledger stays in use; `progress` hears of each as it is
    done. Raises what asyncpg raises."""
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await run_checks(connection, progress)


async def run_checks(connection: Connection, progress: Progress = silent) -> list[Check]:
    """Every check inside the caller's transaction."""
    await connection.execute(f"set local statement_timeout = '{int(CHECK_TIMEOUT_S)}s'")
    results = []
    for name in CHECKS:
        row = await connection.fetchrow(query(f"verify.{name}"), timeout=CHECK_TIMEOUT_S)
        assert row is not None  # an aggregate has one row
        check = Check(name, row["violations"], row["example"])
        progress(check)
        results.append(check)
    return results
