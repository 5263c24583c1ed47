"""Open sessions of exhausted accounts, looked up when a cutoff is published.

There is no index by account: a sorted set beside the leases was measured to cost the functions a sixth more time for
each start and end of a session, and 110 bytes per open hold, for names that are wanted of a few accounts. So the
partition's holds are looked through (0.7 us each), a page per call, once for all accounts of a chunk, and no more than
a small part of the time.
"""

from __future__ import annotations

from collections.abc import Iterable

from billing.balance.calls import Functions, Trouble
from billing.balance.keys import split_session_key
from billing.balance.signals import MOST_SESSIONS
from billing.stream.backoff import Clock
from schemas.signals import SessionName

NAMED = MOST_SESSIONS
PAGE = 1_000  # holds that one call looks at
PACE_S = 1.0
SHARE = 20  # at most one part in so many of the time is spent looking


class OpenSessions:
    """Of one partition."""

    def __init__(self, functions: Functions, partition: int, clock: Clock) -> None:
        self._functions = functions
        self._partition = partition
        self._clock = clock
        self._not_before_s = clock.monotonic()

    async def of(self, accounts: Iterable[str], incarnation: str) -> dict[str, list[SessionName]] | Trouble:
        """Open sessions of each account that has any, at most NAMED + 1; waits for its pace first."""
        wanted: dict[str, dict[str, None]] = {account: {} for account in accounts}
        await self._clock.sleep(max(0.0, self._not_before_s - self._clock.monotonic()))
        begun_s = self._clock.monotonic()
        keys, cursor = self._functions.keys.all(self._partition, incarnation), "0"
        while True:
            args: list[str | int] = [cursor, PAGE, *wanted]
            reply = await self._functions.call("sessions", keys, incarnation, *args, read_only=True)
            if not isinstance(reply, list):
                return reply
            for key in map(bytes.decode, reply[3]):
                wanted[split_session_key(key)[1]][key] = None
            cursor = reply[2].decode()
            if cursor == "0" or all(len(found) > NAMED for found in wanted.values()):
                break
        took_s = self._clock.monotonic() - begun_s
        self._not_before_s = self._clock.monotonic() + max(PACE_S, SHARE * took_s)
        return {account: _names(found) for account, found in wanted.items() if found}


def _names(keys: Iterable[str]) -> list[SessionName]:
    parts = (split_session_key(key) for key in list(keys)[: NAMED + 1])
    return [SessionName(kind=kind, session=session) for kind, _, session in parts]
