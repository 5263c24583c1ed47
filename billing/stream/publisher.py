"""An idempotent producer with bounded in-flight records: what the relay, ticks, `billing publish` and the demo use."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from billing.stream.backoff import Backoff
from billing.stream.kafka import require_c_extension
from billing.stream.log import LogAway
from billing.stream.topics import MAX_TARIFF_BYTES

log = structlog.get_logger(__name__)

BATCH_BYTES = 128 * 1024
CLOSE_SECONDS = 5.0
MAX_REQUEST_SECONDS = 20.0


class Outgoing(NamedTuple):
    """One record to publish; without `partition` the key decides (murmur2, as Java does)."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Delivered(NamedTuple):
    """Where an acknowledged record is in the log."""

    topic: str
    partition: int
    offset: int


class PublishFailed(LogAway):
    """`delivered` records, from the first, are in the log for certain; of the rest nothing is known: publishing them
    again may repeat them, but keeps their order."""

    def __init__(self, reason: str, delivered: int) -> None:
        super().__init__(reason)
        self.delivered = delivered


class Publisher:
    """Connects when first used. After a failure the producer is thrown away, because a later batch must not
    overtake the failed one; the next call makes a new one. Use `async with`, or call `close` (for good)."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str = "billing-publisher",
        max_in_flight: int = 10_000,
        linger_ms: int = 2,
        deadline_seconds: float = 30.0,
    ) -> None:
        require_c_extension()
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._room = asyncio.Semaphore(max_in_flight)
        self._linger_ms = linger_ms
        self._deadline_seconds = deadline_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._unacknowledged: set[asyncio.Future[Delivered]] = set()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect now, waiting with back-off for at most the deadline. Raises LogAway."""
        async with self._starting:
            if self._producer is not None:
                return
            backoff = Backoff(first_seconds=0.1)
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    while self._producer is None:
                        if self._closed:
                            raise LogAway("the publisher was closed")
                        self._producer = await self._connect()
                        if self._producer is None:
                            await asyncio.sleep(backoff.next_seconds())
            except TimeoutError as error:
                raise LogAway(f"no connection to Kafka at {self._bootstrap}") from error

    async def send(self, record: Outgoing) -> asyncio.Future[Delivered]:
        """Queue one record, waiting for room in flight; the future is its acknowledgement. Records of one partition
        keep the order of their sends. Raises LogAway when no room comes within the deadline, ValueError for a record
        that is larger than any request may be."""
        if self._producer is None:
            await self.start()
        producer = self._producer
        if producer is None:
            raise LogAway("the publisher was closed")
        await self._take_room()
        try:
            # waits, within the request timeout, for metadata and for its queue of the partition
            sent: asyncio.Future[Delivered] = await producer.send(
                record.topic, record.value, record.key, record.partition, headers=list(record.headers)
            )
        except BaseException as error:
            self._room.release()
            match error:
                case kafka_errors.MessageSizeTooLargeError():
                    raise ValueError(str(error)) from error
                case kafka_errors.KafkaError():
                    raise LogAway(str(error) or type(error).__name__) from error
            raise
        self._unacknowledged.add(sent)
        sent.add_done_callback(self._acknowledged)
        return sent

    async def publish(self, records: Iterable[Outgoing]) -> list[Delivered]:
        """Publish in order; answers when all are acknowledged. Raises PublishFailed."""
        delivered: list[Delivered] = []
        waiting: deque[asyncio.Future[Delivered]] = deque()
        try:
            for record in records:
                waiting.append(await self.send(record))
                while waiting and waiting[0].done():
                    delivered.append(_place(waiting.popleft()))
            for sent in waiting:
                async with asyncio.timeout(self._deadline_seconds):
                    await asyncio.wait([sent])
                delivered.append(_place(sent))
        except (LogAway, kafka_errors.KafkaError, TimeoutError) as error:
            reason = str(error) or f"no acknowledgement within {self._deadline_seconds:.0f} s"
            await self._abandon(reason)
            raise PublishFailed(reason, len(delivered)) from error
        except BaseException:
            await self._abandon("publishing was given up")
            raise
        return delivered

    async def close(self) -> None:
        """Wait a moment for what is in flight, then disconnect."""
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await producer.flush()
            await self._give_up(producer, "the publisher was closed")

    async def _take_room(self) -> None:
        if self._room.locked():
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    await self._room.acquire()
            except TimeoutError as error:
                raise LogAway("no room to publish: nothing is acknowledged") from error
        else:
            await self._room.acquire()  # does not wait: no timer, which would cost as much as the send

    async def _connect(self) -> AIOKafkaProducer | None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,  # acks=all, retried for ever, in order within a partition
            linger_ms=self._linger_ms,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_TARIFF_BYTES,
            request_timeout_ms=int(min(self._deadline_seconds, MAX_REQUEST_SECONDS) * 1000),
        )
        try:
            await producer.start()
        except (kafka_errors.KafkaError, OSError) as error:
            log.warning("publisher.away", server=self._bootstrap, error=str(error))
            await _drop(producer)
            return None
        except BaseException:
            await _drop(producer)
            raise
        return producer

    async def _abandon(self, reason: str) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            log.warning("publisher.abandoned", server=self._bootstrap, reason=reason)
            await self._give_up(producer, reason)

    async def _give_up(self, producer: AIOKafkaProducer, reason: str) -> None:
        await _drop(producer)
        for sent in list(self._unacknowledged):  # their outcome is unknown, and nobody would ever tell
            if not sent.done():
                sent.set_exception(LogAway(reason))

    def _acknowledged(self, sent: asyncio.Future[Delivered]) -> None:
        self._unacknowledged.discard(sent)
        self._room.release()
        if not sent.cancelled():
            sent.exception()  # seen here, so that one nobody waits for is not reported at exit


def _place(sent: asyncio.Future[Delivered]) -> Delivered:
    """Of an acknowledged record; raises what its delivery failed with."""
    there = sent.result()
    return Delivered(there.topic, there.partition, there.offset)


async def _drop(producer: AIOKafkaProducer) -> None:
    """Close without waiting for undelivered batches: connections first, or the sender waits for its requests."""
    producer._closed = True  # `stop` would flush first; this only silences its "unclosed" warning, also when cancelled
    with suppress(kafka_errors.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.client.close()
            await producer._sender.close()
