"""Mending what another hand made unreadable: an account's record, which would stop its partition, or a hold."""

from __future__ import annotations

from typing import Literal

from billing.balance.calls import Functions, Trouble


async def mend(functions: Functions, partition: int, account: str) -> Literal["mended", "readable"] | Trouble:
    """Put an empty record, of an unknown balance, in the place of one that nobody can read (the partition's owner
    derives the account then), and forget the account's holds that nobody can read. Anything else is left alone."""
    incarnation = await functions.incarnation(partition)
    if not isinstance(incarnation, str):
        return incarnation
    reply = await functions.call("mend", functions.keys.all(partition, incarnation), incarnation, account)
    if not isinstance(reply, list):
        return reply
    return "mended" if reply[0] == "applied" else "readable"
