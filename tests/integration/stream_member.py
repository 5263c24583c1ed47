"""A consumer process of its own whose sink is the test's, over a socket: `python stream_member.py BOOTSTRAP GROUP PORT
TOPIC…`. Real Kafka, a real process that can be stopped; the store stays with the test, as a store does.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any

from billing.stream.kafka import kafka_group
from billing.stream.kafka_reader import LogReader
from billing.stream.memory_sink import Effect, Everything
from billing.stream.plan import Plan
from billing.stream.record import Position
from billing.stream.runner import Runner
from billing.stream.sink import ApplyAnswer, Batch, ClaimAnswer, Owner, TendAnswer

LENGTH = struct.Struct(">I")
PARTITIONS = 4


async def read_message(reader: asyncio.StreamReader) -> Any:
    """A length, then a pickle: both ends are this test's."""
    size = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
    return pickle.loads(await reader.readexactly(size))


def write_message(writer: asyncio.StreamWriter, message: Any) -> None:
    data = pickle.dumps(message)
    writer.write(LENGTH.pack(len(data)) + data)


async def serve(sink: Any) -> asyncio.Server:
    """Offer a sink to member processes on a free port of loopback."""

    async def answer(writer: asyncio.StreamWriter, number: int, name: str, args: Any, kwargs: Any) -> None:
        write_message(writer, (number, await getattr(sink, name)(*args, **kwargs)))

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                call = asyncio.create_task(answer(writer, *await read_message(reader)))
                calls.add(call)
                call.add_done_callback(calls.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(client, "127.0.0.1", 0)


class RemoteSink:
    """A Sink whose store is at the other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        while True:
            number, answer = await read_message(self._reader)
            self._waiting.pop(number).set_result(answer)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        write_message(self._writer, (number, name, args, kwargs))
        return await self._waiting[number]

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        return await self._call("claim", partition, nonce)  # type: ignore[no-any-return]  # pickled

    async def apply(self, batch: Batch[Effect]) -> ApplyAnswer:
        return await self._call("apply", batch)  # type: ignore[no-any-return]  # pickled

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        return await self._call("tend", owner, partition, at_end=at_end)  # type: ignore[no-any-return]  # pickled

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        await self._call("halt", owner, partition, reason)


async def main(bootstrap: str, group: str, port: int, topics: list[str]) -> int:
    sink = RemoteSink(*await asyncio.open_connection("127.0.0.1", port))
    async with LogReader(bootstrap) as reader:
        plan = Plan(
            group=group,
            topics=topics,
            partitions=PARTITIONS,
            sink=sink,
            interpreters={topic: Everything() for topic in topics},
            max_records=dict.fromkeys(topics, 50),
            reader=reader,
        )
        runner = Runner(plan, kafka_group(bootstrap, group, topics))
        drains: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: drains.append(loop.create_task(runner.drain())))
        return (await runner.run()).exit_code


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])))
