"""Waiting until Redis shows what the ledger has booked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount, Unknown
from billing.balance.reader import PAGE, BalanceReader

POLL_SECONDS = 0.05
HINT = "are relay and inflight running?"


@dataclass(frozen=True, slots=True)
class ShownIn:
    """Redis shows every account at its ledger_seq, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NotShown:
    """The first account that Redis does not show yet, and what it shows instead."""

    account: str
    why: str


async def wait_until_shown(reader: BalanceReader, wanted: Mapping[str, int], *, timeout_s: float) -> ShownIn | NotShown:
    """Until every account of `wanted` is known in Redis at its ledger_seq or later; at most `timeout_s`."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    missing = {partition: deque(accounts) for partition, accounts in reader.by_partition(wanted).items()}
    while True:
        last = None
        for partition, accounts in missing.items():
            last = await _drop_shown(reader, partition, accounts, wanted) or last
        if last is None:
            return ShownIn(loop.time() - begin)
        if loop.time() - begin > timeout_s:
            return last
        await asyncio.sleep(POLL_SECONDS)


async def _drop_shown(
    reader: BalanceReader, partition: int, missing: deque[str], wanted: Mapping[str, int]
) -> NotShown | None:
    """Take what Redis shows off the front of `missing`; the account it stopped at, if any."""
    while missing:
        page = list(islice(missing, PAGE))
        answers = await reader.read_many(partition, page)
        for account in page:
            answer = answers if isinstance(answers, Unknown) else answers.get(account, NoSuchAccount())
            if not isinstance(answer, Known) or answer.ledger_seq < wanted[account]:
                return NotShown(account, _why(account, wanted[account], answer))
            missing.popleft()
    return None


def _why(account: str, seq: int, answer: BalanceAnswer) -> str:
    if isinstance(answer, Known):
        return (
            f"account {account} is at ledger_seq {answer.ledger_seq}, not yet {seq} (are relay and inflight running?)"
        )
    if isinstance(answer, NoSuchAccount):
        return f"account {account} is not there yet ({HINT})"
    return f"account {account} is unknown ({answer.reason}) {answer.detail}".rstrip()
