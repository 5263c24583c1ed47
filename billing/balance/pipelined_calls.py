"""Calling the functions often: over one connection to each server (`billing.balance.pipelined`)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from redis.asyncio import Redis

from billing.balance.calls import Argument, Functions
from billing.balance.client import TIMEOUT_S, Client
from billing.balance.keys import KeySpace
from billing.balance.library import FUNCTION_VERSION, LIBRARY
from billing.balance.pipelined import Pipelined
from billing.balance.resp import pack


class PipelinedFunctions(Functions):
    """`Functions` for a process that calls them all the time. A server that left a call without an answer for
    `silent_s` is connected anew by the next. Close it before its client."""

    def __init__(
        self,
        client: Client,
        keys: KeySpace,
        *,
        library: str = LIBRARY,
        version: str = FUNCTION_VERSION,
        timeout_s: float = TIMEOUT_S,
        silent_s: float | None = None,
    ) -> None:
        super().__init__(client, keys, library=library, version=version, timeout_s=timeout_s)
        self._silent_s = timeout_s if silent_s is None else silent_s
        self._pipes: dict[Redis, Pipelined] = {}

    def close(self) -> None:
        """Drop the connections: calls under way are answered Unavailable."""
        for pipe in self._pipes.values():
            pipe.close()

    def _ask(self, node: Redis, *command: Argument) -> Awaitable[Any]:
        pipe = self._pipes.get(node)
        if pipe is None:
            pipe = self._pipes[node] = Pipelined(node, silent_s=self._silent_s)
        return pipe.ask(pack(command))
