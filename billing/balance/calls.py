"""Calling the functions: keys, the arguments that every call begins with, a deadline, and errors as answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from redis.asyncio import Redis

from billing.balance.client import TIMEOUT_S, Client
from billing.balance.cluster import Cluster
from billing.balance.errors import CALL_ERRORS, answer_for
from billing.balance.keys import KeySpace
from billing.balance.library import FUNCTION_VERSION, LIBRARY
from billing.stream.sink import Fenced, Halted, ReadOnly, Refused, Unavailable, Uninitialised

Argument: TypeAlias = str | bytes | int
Reply: TypeAlias = list[Any]
Trouble: TypeAlias = Refused | Halted | Uninitialised | Fenced | ReadOnly | Unavailable


class Functions:
    """The function library on one store. `library` and `version` differ only in tests."""

    def __init__(
        self,
        client: Client,
        keys: KeySpace,
        *,
        library: str = LIBRARY,
        version: str = FUNCTION_VERSION,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.client = client
        self.keys = keys
        self.library = library
        self.version = version
        self._timeout_s = timeout_s
        self._cluster = client if isinstance(client, Cluster) else None

    async def incarnation(self, partition: int) -> str | ReadOnly | Unavailable | Uninitialised:
        """The incarnation in force, "" where there is none."""
        meta = self.keys.meta(partition)
        value = await self.at(meta, lambda node: self._ask(node, "HGET", meta, "incarnation"))
        return value.decode() if isinstance(value, bytes) else value or ""

    async def call(
        self, name: str, keys: list[str], incarnation: str, *args: Argument, read_only: bool = False
    ) -> Reply | Trouble:
        """One function call. A list is the function's answer beyond refusals, its first member the name.

        The reply to a call that is cancelled or times out comes to nobody else (S39).
        """
        head = ("FCALL_RO" if read_only else "FCALL", f"{self.library}_{name}", len(keys), *keys)
        given = (self.version, self.keys.partitions, self.keys.generation_ms, incarnation, *args)
        reply = await self.at(keys[0], lambda node: self._ask(node, *head, *given))
        return refusal(reply) if isinstance(reply, list) else reply

    def _ask(self, node: Redis, *command: Argument) -> Awaitable[Any]:
        answer: Awaitable[Any] = node.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
        return answer

    async def at(
        self, key: str, command: Callable[[Redis], Any]
    ) -> Any | ReadOnly | Unavailable | Uninitialised:
        """What `command` answers on the server that has `key`; an error becomes its answer."""
        if self._cluster is not None:
            return await self.run(self._cluster.run(key, command))
        return await self.run(command(cast(Redis, self.client)))

    async def run(self, command: Any) -> Any | ReadOnly | Unavailable | Uninitialised:
        """Await one command of a client, within the deadline; an error becomes its answer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await cast(Awaitable[Any], command)
        except CALL_ERRORS as error:
            return answer_for(error)


def refusal(reply: Reply) -> Reply | Trouble:
    """A function's reply, or the refusal that it is."""
    name = reply[0] = reply[0].decode()
    match name:
        case "refused":
            return Refused(reply[1].decode())
        case "halted":
            return Halted(reply[1].decode())
        case "uninitialised":
            return Uninitialised(reply[1].decode())
        case "fenced":
            return Fenced()
        case _:
            return reply
