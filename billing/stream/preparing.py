"""Interpreting the records of many lanes on one thread: a lane at a time, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from billing.stream.record import Record
from billing.stream.sink import Interpretation, Interpreter, Op

SLICE_RECORDS = 100
"""About 0.7 ms of decoding and rating."""


class Preparing:
    """One for all lanes of a consumer. Interpreting is CPU work, in which no answer of the store is read and no
    heartbeat sent: after each slice the others have their turn, so that the store does not wait for what is ready.
    Lanes do not interpret side by side: the first would be ready no sooner than the last. A slice has two records or
    more, because an interpreter ends a batch by leaving one."""

    def __init__(self, slice_records: int = SLICE_RECORDS) -> None:
        assert slice_records > 1
        self._slice = slice_records
        self._turn = asyncio.Lock()

    async def interpret(self, interpreter: Interpreter[Op], records: Sequence[Record]) -> Interpretation[Op]:
        """What `interpreter` makes of `records` in one piece. The catalogue may grow between two slices: where an
        account was not listed and then is, the sink asks to catch up, and the records are interpreted again (S46)."""
        async with self._turn:
            ops: list[Any] = []
            taken = 0
            while True:
                piece = records[taken : taken + self._slice]
                made = interpreter.interpret(piece, records[taken - 1] if taken else None)
                ops += made.ops
                taken += made.taken
                await asyncio.sleep(0)
                if made.taken < len(piece) or taken == len(records):
                    return Interpretation(ops, taken, made.needs_horizon_ms)
