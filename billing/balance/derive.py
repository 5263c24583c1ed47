"""Deriving an account whose balance is unknown from the ledger, in a step that only its partition's owner can do.

An account is unknown since usage of it was passed, its entries had a gap, or a number left its bounds. Everything
below its offset D was applied or passed, so the ledger's record as of D takes its place: accepted only while D has
not moved and no newer entry has been seen. See "Deriving" in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import structlog

from billing.balance import metrics
from billing.balance.calls import Functions, Trouble
from billing.balance.keys import session_key
from billing.balance.records import UnknownRecord, pack
from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerUnavailable, LedgerView
from billing.stream.sink import Owner

log = structlog.get_logger(__name__)

WAIT_S = 5.0  # how long the owner may wait for the ledger while it holds the partition
POLL_S = 0.1
BACKOFF_S = 10.0
CHUNK = 1000  # sessions of one call
REMEMBERED = 10_000  # accounts whose last attempt is remembered


@dataclass(slots=True)
class _Attempt:
    offset: int
    not_before_s: float


Outcome: TypeAlias = str  # derived, moved, lagging, timeline, unavailable


class Deriver:
    """Remembers what was tried, so that an account that cannot be derived now does not take all the owner's time."""

    def __init__(
        self, functions: Functions, view: LedgerView, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._functions = functions
        self._view = view
        self._clock = clock
        self._attempts: dict[tuple[int, str], _Attempt] = {}

    async def derive(
        self,
        owner: Owner,
        partition: int,
        incarnation: str,
        log_time_ms: int,
        accounts: Sequence[tuple[str, UnknownRecord]],
    ) -> Trouble | None:
        """Try these accounts for at most WAIT_S altogether. Returns the store's refusal, if there was one."""
        until_s = self._clock() + WAIT_S
        generation_ms = self._functions.keys.generation_ms
        since_ms = max(0, (log_time_ms // generation_ms - 2) * generation_ms)
        step = _Step(self._functions, self._view, owner, partition, incarnation, since_ms)
        for account, unknown in accounts:
            if self._clock() >= until_s:
                break
            attempt = self._attempts.get((partition, account))
            if attempt is not None and self._clock() < attempt.not_before_s:
                continue
            moved = attempt is not None and attempt.offset < unknown.offset
            outcome = await self._try(step, account, unknown, until_s if moved else 0.0)
            if not isinstance(outcome, str):
                return outcome
            metrics.DERIVATIONS.labels(outcome).inc()
            if outcome == "timeline":
                log.error("balance.derive_refused", partition=partition, reason=outcome)
            self._remember((partition, account), unknown.offset, outcome, moved)
        return None

    async def _try(
        self, step: _Step, account: str, unknown: UnknownRecord, until_s: float
    ) -> Outcome | Trouble:
        """Where D moved since the last attempt, wait for the ledger: nothing moves while the owner is here."""
        while True:
            outcome = await step.once(account, unknown)
            if outcome != "lagging" or self._clock() + POLL_S >= until_s:
                return outcome
            await asyncio.sleep(POLL_S)

    def _remember(self, key: tuple[int, str], offset: int, outcome: Outcome, moved: bool) -> None:
        if outcome == "derived":
            self._attempts.pop(key, None)
            return
        soon = outcome == "moved" or (outcome == "lagging" and not moved)
        if len(self._attempts) >= REMEMBERED:
            self._attempts.clear()
        self._attempts[key] = _Attempt(offset, self._clock() + (0.0 if soon else BACKOFF_S))


@dataclass(frozen=True, slots=True)
class _Step:
    functions: Functions
    view: LedgerView
    owner: Owner
    partition: int
    incarnation: str
    since_ms: int

    async def once(self, account: str, unknown: UnknownRecord) -> Outcome | Trouble:
        try:
            async with asyncio.timeout(WAIT_S):
                answer = await self.view.derive(account, self.partition, unknown.offset, self.since_ms)
        except TimeoutError:
            return "unavailable"
        if isinstance(answer, LedgerUnavailable):
            return "unavailable"
        if isinstance(answer, LedgerLagging) or answer.ledger_seq < unknown.seen:
            return "lagging"
        return await self._write(account, unknown.offset, answer)

    async def _write(self, account: str, offset: int, snapshot: AccountSnapshot) -> Outcome | Trouble:
        sessions = [session_key(kind, account, session) for kind, session in snapshot.settled]
        for first in range(0, len(sessions), CHUNK):
            chunk = pack(sessions[first : first + CHUNK])
            reply = await self._call("settled", account, snapshot.timeline, chunk)
            if reply != "applied":
                return reply
        packed = snapshot.record(held=0).pack()  # the function keeps the holds that are open
        reply = await self._call("derive", account, offset, snapshot.timeline, packed)
        return "derived" if reply == "applied" else reply

    async def _call(self, name: str, *args: str | bytes | int) -> Outcome | Trouble:
        keys = self.functions.keys.all(self.partition, self.incarnation)
        reply = await self.functions.call(
            name, keys, self.incarnation, self.owner.epoch, self.owner.nonce, *args
        )
        return cast(str, reply[0]) if isinstance(reply, list) else reply
