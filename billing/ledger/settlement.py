"""The steps of one batch inside its transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from billing.ledger.completions import Completion, SessionKey, Sorted, compare, dead_letter_row
from billing.ledger.database import Connection, RollBack
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.ledger.recent import RecentSessions
from billing.ledger.settling import LINE_COLUMNS, USAGE_COLUMNS, CurrencySum, settling
from billing.stream.sink import ApplyAnswer, Batch, CatchUp, Halted, Unavailable
from billing.usage.ops import Charge, DeadLetter, Stray, UsageOp
from schemas.reasons import DeadLetterReason


class Settlement:
    """Effects of `batch`, sorted as `work`, on a connection that is inside a transaction."""

    def __init__(self, connection: Connection, batch: Batch[UsageOp], work: Sorted, recent: RecentSessions) -> None:
        self._connection = connection
        self._batch = batch
        self._work = work
        self._recent = recent

    async def run(
        self,
        check: Callable[[Batch[UsageOp], asyncpg.Record | None], ApplyAnswer | None],
        tariffs_topic: str,
    ) -> Sequence[CurrencySum]:
        """Effects and position; returns sessions and amount per currency. Raises RollBack with the answer."""
        batch, connection = self._batch, self._connection
        refusal = check(batch, await connection.fetchrow(query("sink.lock_position"), USAGE_TOPIC, batch.partition))
        if refusal is not None:
            raise RollBack(refusal)
        await self._judge_strays(tariffs_topic)
        settled = await self._settle() if self._work.charges else ()
        await self._store_rest()
        await connection.execute(
            query("sink.advance"),
            *(USAGE_TOPIC, batch.partition, batch.to_offset, batch.fingerprint, batch.log_time_ms),
        )
        return settled

    async def _judge_strays(self, tariffs_topic: str) -> None:
        """Usage of accounts that the catalogue does not list: the ledger has the last word (S46)."""
        strays = self._work.strays
        if not strays:
            return
        ids = sorted({stray.account for stray in strays if "\x00" not in stray.account})
        rows = await self._connection.fetch(query("sink.known_accounts"), ids)
        known = {row["id"]: row for row in rows}
        letters = []
        for stray in strays:
            row = known.get(stray.account)
            if row is not None and row["home_partition"] != self._batch.partition:
                letters.append(_dead(stray, DeadLetterReason.WRONG_PARTITION, f"home is {row['home_partition']}"))
            elif row is None or row["usage_position"] > stray.offset:
                letters.append(_dead(stray, DeadLetterReason.UNKNOWN_ACCOUNT, "no such account at this offset"))
            elif self._batch.caught_up:
                raise RollBack(Unavailable("the catalogue lags behind the ledger: is the relay running?"))
            else:
                raise RollBack(CatchUp(tariffs_topic))
        self._work.dead_letters.extend(letters)
        strays.clear()

    async def _settle(self) -> Sequence[CurrencySum]:
        """Sessions, entry and lines: the database moves the balances with the lines, in account order, so that no two
        transactions wait for each other."""
        connection, batch = self._connection, self._batch
        fresh = await self._fresh()
        if not fresh:
            return ()
        entry_id = await connection.fetchval(query("sink.next_entry"))
        rows = settling(fresh.values(), batch.partition, entry_id)
        if not rows.fits:
            raise RollBack(Halted("a total does not fit 64 bits"))
        await self._refuse_strange(rows.uncharged)
        await connection.copy_records_to_table("usage", records=rows.usage, columns=USAGE_COLUMNS)
        if rows.lines:
            await connection.execute(
                query("sink.add_settlement"), entry_id, batch.partition, batch.from_offset, batch.to_offset
            )
            try:
                await connection.copy_records_to_table("postings", records=rows.lines, columns=LINE_COLUMNS)
            except asyncpg.CheckViolationError as error:
                if error.constraint_name != "known_account":
                    raise
                raise RollBack(Halted(error.args[0])) from None
        return rows.sums

    async def _fresh(self) -> dict[SessionKey, Charge]:
        """The batch's charges without those of sessions that the ledger has: these are compared with it."""
        charges = self._work.charges
        suspects = self._recent.suspects(self._batch.partition, charges)
        if not suspects:
            return charges
        await self._connection.execute(query("sink.look_up"))
        rows = await self._connection.fetch(query("sink.settled_before"), *zip(*suspects, strict=True))
        if not rows:
            return charges
        fresh = dict(charges)
        for row in rows:
            refused = fresh.pop((row["account_id"], row["kind"], row["session_id"]))
            kept = Completion(**{name: row[name] for name in Completion._fields})
            compare(self._work, refused, row["kept_offset"], kept)
        return fresh

    async def _refuse_strange(self, accounts: Sequence[tuple[str, str]]) -> None:
        """Halt where the ledger does not have one of these accounts in this currency."""
        if not accounts:
            return
        row = await self._connection.fetchrow(query("sink.strange_account"), *zip(*accounts, strict=True))
        if row is not None:
            raise RollBack(Halted(_strange_account(row)))

    async def _store_rest(self) -> None:
        work, partition = self._work, self._batch.partition
        if work.dead_letters:
            await self._connection.executemany(
                query("sink.add_dead_letter"), [dead_letter_row(USAGE_TOPIC, letter) for letter in work.dead_letters]
            )
        if work.findings:
            await self._connection.executemany(
                query("sink.add_finding"),
                [
                    (partition, f.account, f.kind, f.session, f.kept_offset, f.refused_offset, f.detail())
                    for f in work.findings
                ],
            )


def _dead(stray: Stray, reason: DeadLetterReason, detail: str) -> DeadLetter:
    return DeadLetter(stray.record, reason, detail)


def _strange_account(row: Any) -> str:
    """In the words of check_postings() in 0010_settlement.sql."""
    return (
        f"account {row['account_id']} is charged in {row['currency']},"
        f" but the ledger has {row['ledger_currency'] or 'no such account'}"
    )
