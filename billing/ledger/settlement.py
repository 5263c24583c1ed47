"""The steps of one batch inside its transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from billing.ledger.completions import CHARGE_COLUMNS, Completion, Sorted, charge_rows, compare, dead_letter_row
from billing.ledger.database import Connection, RollBack
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.stream.sink import ApplyAnswer, Batch, CatchUp, Halted, Unavailable
from billing.usage.ops import DeadLetter, Stray, UsageOp
from schemas.reasons import DeadLetterReason


class Settlement:
    """Effects of `batch`, sorted as `work`, on a connection that is inside a transaction."""

    def __init__(self, connection: Connection, batch: Batch[UsageOp], work: Sorted) -> None:
        self._connection = connection
        self._batch = batch
        self._work = work

    async def run(
        self,
        check: Callable[[Batch[UsageOp], asyncpg.Record | None], ApplyAnswer | None],
        tariffs_topic: str,
    ) -> Sequence[asyncpg.Record]:
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

    async def _settle(self) -> Sequence[asyncpg.Record]:
        connection, batch, charges = self._connection, self._batch, self._work.charges
        await connection.execute(query("sink.prepare_charges"))
        await connection.copy_records_to_table(
            "charges", schema_name="pg_temp", records=charge_rows(charges.values()), columns=CHARGE_COLUMNS
        )
        strange = await connection.fetchrow(query("sink.lock_balances"))
        if strange is not None:
            raise RollBack(Halted(_strange_account(strange)))
        settled = await connection.fetch(query("sink.settle"), batch.partition, batch.from_offset, batch.to_offset)
        if sum(row["sessions"] for row in settled) < len(charges):
            await self._compare_duplicates()
        return settled

    async def _compare_duplicates(self) -> None:
        rows = await self._connection.fetch(query("sink.duplicates"), self._batch.from_offset)
        for row in rows:
            refused = self._work.charges[row["account_id"], row["kind"], row["session_id"]]
            kept = Completion(**{name: row[name] for name in Completion._fields})
            compare(self._work, refused, row["kept_offset"], kept)

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
    if row["ledger_currency"] is None:
        return f"account {row['account_id']} is in the catalogue but not in the ledger (restored to an earlier time?)"
    return f"account {row['account_id']} has {row['ledger_currency']}, charged in {row['currency']}"
