"""Looking at accounts in both books: the one place where two sides of an account are put beside each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount
from billing.balance.balances import Unknown as UnknownBalance
from billing.balance.reader import BalanceReader
from billing.ledger.database import Connection
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.reconcile.compare import Side, Unknown, compare
from billing.reconcile.report import Compared

POLL_S = 0.05
AWAY = "unavailable"  # the reason of a store that gives no answer

Answers = dict[str, BalanceAnswer] | UnknownBalance


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `known` of the accounts have a balance in the store; `unknown`: why the store as a whole has
    none."""

    found: list[Compared]
    known: int
    unknown: UnknownBalance | None

    @property
    def away(self) -> bool:
        """The store gave no answer."""
        return self.unknown is not None and self.unknown.reason == AWAY

    @property
    def hopeless(self) -> bool:
        """Another look changes nothing until somebody acts."""
        return self.unknown is not None and not self.away


class Looker:
    """Each look is one read of the store, of at most `billing.balance.reader.PAGE` accounts of one partition. Raises
    what asyncpg raises when the ledger is away; a store that is away is an answer."""

    def __init__(self, reader: BalanceReader, usage_topic: str) -> None:
        self._reader = reader
        self._usage_topic = usage_topic

    async def first(self, partition: int, ledger: Mapping[str, Side]) -> Look:
        """A quick look at accounts as the ledger has just been read: in most both books are at the same place."""
        answers = await self._reader.read_many(partition, list(ledger))
        return _look(partition, ledger, list(ledger), answers, same_usage=False)

    async def closer(self, connection: Connection, partition: int, accounts: Sequence[str], until_s: float) -> Look:
        """The store first, then the ledger as it was at the store's usage position, waiting for it until the monotonic
        time `until_s`. So an account in constant use is compared too, and the ledger is never the older reading."""
        answers = await self._reader.read_many(partition, accounts)
        at = _usage_position(answers, self._usage_topic)
        same_usage = at is not None and await _ledger_reaches(connection, partition, at, until_s)
        rows = await (
            connection.fetch(query("reconcile.balances_below"), partition, list(accounts), at)
            if same_usage
            else connection.fetch(query("reconcile.balances_of"), partition, list(accounts))
        )
        ledger = {row["id"]: ledger_side(row) for row in rows}
        return _look(partition, ledger, accounts, answers, same_usage=same_usage)


def ledger_side(row: Any) -> Side:
    """The ledger's side, of a row of the `reconcile.balances_…` queries."""
    last = row["last_charged_offset"]
    return Side(row["balance_micros"], row["ledger_seq"], -1 if last is None else last, row["currency"])


def _look(
    partition: int, ledger: Mapping[str, Side], accounts: Sequence[str], answers: Answers, *, same_usage: bool
) -> Look:
    found = []
    for account in accounts:
        side = _store_side(answers if isinstance(answers, UnknownBalance) else answers[account])
        comparison = compare(ledger.get(account), side, same_usage=same_usage)
        seen = side if isinstance(side, Side) else None
        found.append(Compared(account, partition, comparison, ledger.get(account), seen))
    if isinstance(answers, UnknownBalance):
        return Look(found, 0, answers)
    return Look(found, sum(isinstance(answer, Known) for answer in answers.values()), None)


async def _ledger_reaches(connection: Connection, partition: int, offset: int, until_s: float) -> bool:
    """Whether the ledger has settled everything below a usage offset."""
    while True:
        reached: int = await connection.fetchval(query("reconcile.usage_position"), USAGE_TOPIC, partition)
        if reached >= offset or time.monotonic() >= until_s:
            return reached >= offset
        await asyncio.sleep(POLL_S)


def _usage_position(answers: Answers, topic: str) -> int | None:
    """The store's usage position at the moment of these answers; None when no balance came with it."""
    if isinstance(answers, UnknownBalance):
        return None
    known = next((answer for answer in answers.values() if isinstance(answer, Known)), None)
    return None if known is None else known.positions[topic].offset


def _store_side(answer: BalanceAnswer) -> Side | Unknown | None:
    match answer:
        case Known():
            balance_micros = answer.credit_micros - answer.used_micros
            return Side(balance_micros, answer.ledger_seq, answer.last_charge_offset, answer.currency)
        case UnknownBalance():
            return Unknown(answer.reason)
        case NoSuchAccount():
            return None
