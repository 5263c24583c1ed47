"""Mending an account's record that another hand made unreadable: it would stop its partition, both topics of it."""

from __future__ import annotations

from operator import methodcaller
from typing import Literal

from billing.balance.calls import Functions, Trouble
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised

MOST_HOLDS = 5_000  # of one account; what is held beyond them is forgotten until the next rebuild


async def mend(functions: Functions, partition: int, account: str) -> Literal["mended", "readable"] | Trouble:
    """Put an empty record, of an unknown balance, in the place of one that nobody can read; the partition's owner
    derives the account then. A record that can be read is left alone."""
    incarnation = await functions.incarnation(partition)
    if not isinstance(incarnation, str):
        return incarnation
    sessions = await _sessions(functions, partition, incarnation, account)
    if not isinstance(sessions, list):
        return sessions
    keys = functions.keys.all(partition, incarnation)
    reply = await functions.call("mend", keys, incarnation, account, *sessions[:MOST_HOLDS])
    if not isinstance(reply, list):
        return reply
    return "mended" if reply[0] == "applied" else "readable"


async def _sessions(
    functions: Functions, partition: int, incarnation: str, account: str
) -> list[bytes] | ReadOnly | Unavailable | Uninitialised:
    """Keys of the account's open holds. None come or go meanwhile: whoever tries to meets the unreadable record."""
    key = functions.keys.data(partition, incarnation)[2]
    cursor, found = 0, dict[bytes, None]()
    while True:
        page = await functions.at(key, methodcaller("hscan", key, cursor, match=f"?/{account}/*", count=1000))
        if isinstance(page, ReadOnly | Unavailable | Uninitialised):
            return page
        cursor = int(page[0])
        found |= dict.fromkeys(page[1])
        if cursor == 0:
            return list(found)
