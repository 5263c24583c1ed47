"""The demo's producer: sends at a steady rate and knows what Kafka has acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from aiokafka import AIOKafkaProducer

from billing.lab.traffic import Traffic
from billing.lab.wire import Message

TICK_SECONDS = 0.01
MAX_IN_FLIGHT = 20_000  # records; beyond it we wait for acknowledgements
DELIVERY_TIMEOUT_MS = 120_000  # a broker may be away that long


class Undelivered(RuntimeError):
    """Kafka did not acknowledge a record in time; whether it is in the log is unknown."""


class Publisher:
    """Idempotent, acks=all, so that records of a partition stay in order and come once."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            request_timeout_ms=DELIVERY_TIMEOUT_MS,
        )
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._failure: BaseException | None = None
        self.acknowledged = 0

    async def __aenter__(self) -> Publisher:
        try:
            async with asyncio.timeout(60):
                await self._producer.start()
        except BaseException:
            await self._producer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # stop() sends what is left first; when we are giving up, that may be for ever
        stopping = asyncio.ensure_future(self._producer.stop())
        await asyncio.wait([stopping], timeout=10 if error is None else 2)
        stopping.cancel()
        await asyncio.wait([stopping])

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand the records to the client, in order. Raises Undelivered when an earlier one failed."""
        for message in messages:
            future = await self._producer.send(
                self._topic,
                value=message.value,
                key=message.key,
                partition=message.partition,
                headers=list(message.headers),
            )
            self._in_flight += 1
            future.add_done_callback(self._done)
        if self._in_flight >= MAX_IN_FLIGHT:
            self._room.clear()
            async with asyncio.timeout(DELIVERY_TIMEOUT_MS / 1000 + 10):
                await self._room.wait()
        self._raise_failure()

    async def flush(self) -> None:
        """Wait until everything is acknowledged. Raises Undelivered."""
        async with asyncio.timeout(DELIVERY_TIMEOUT_MS / 1000 + 10):
            await self._producer.flush()
        self._raise_failure()

    def _done(self, future: asyncio.Future[object]) -> None:
        self._in_flight -= 1
        if self._in_flight < MAX_IN_FLIGHT // 2:
            self._room.set()
        if future.cancelled():
            self._failure = self._failure or Undelivered("the producer was stopped")
        elif error := future.exception():
            self._failure = self._failure or error
        else:
            self.acknowledged += 1

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise Undelivered(f"Kafka did not acknowledge a record: {self._failure!r}") from self._failure


async def publish_for(
    publisher: Publisher,
    traffic: Traffic,
    *,
    seconds: float,
    rate: int,
    on_tick: Callable[[], None] | None = None,
) -> float:
    """Send `rate` records a second for `seconds`, then wait for the last acknowledgement. Returns the seconds of
    the sending. Records that were due while the loop was busy are sent at the next tick, up to a second's worth."""
    begin = time.monotonic()
    sent = 0
    while (elapsed := time.monotonic() - begin) < seconds:
        due = min(int(elapsed * rate) - sent, rate)
        if due > 0:
            await publisher.send(traffic.take(int(time.time() * 1000), due))
            sent += due
        if on_tick is not None:
            on_tick()
        await asyncio.sleep(TICK_SECONDS)
    await publisher.flush()
    return elapsed
