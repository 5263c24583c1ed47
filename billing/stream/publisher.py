"""An idempotent producer with bounded in-flight records: what the relay, ticks, `billing publish` and the demo use."""

from __future__ import annotations

import asyncio
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


class Outgoing(NamedTuple):
    """One record to publish; without `partition` the key decides (murmur2, as Java does)."""

    topic: str
    value: bytes
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
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self._room.acquire()
                try:
                    sent: asyncio.Future[Delivered] = await producer.send(
                        record.topic, record.value, record.key, record.partition, headers=list(record.headers)
                    )
                except BaseException:
                    self._room.release()
                    raise
        except kafka_errors.MessageSizeTooLargeError as error:
            raise ValueError(str(error)) from error
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise LogAway(str(error) or "no room to publish") from error
        self._unacknowledged.add(sent)
        sent.add_done_callback(self._acknowledged)
        return sent

    async def publish(self, records: Iterable[Outgoing]) -> list[Delivered]:
        """Publish in order; answers when all are acknowledged. Raises PublishFailed."""
        sent: list[asyncio.Future[Delivered]] = []
        try:
            for record in records:
                sent.append(await self.send(record))
            if sent:
                await asyncio.wait(sent, timeout=self._deadline_seconds)
        except LogAway as error:
            delivered = _leading(sent)
            await self._abandon(str(error))
            raise PublishFailed(str(error), delivered) from error
        except BaseException:
            await self._abandon("publishing was given up")
            raise
        delivered = _leading(sent)
        if delivered < len(sent):
            await self._abandon(f"no acknowledgement within {self._deadline_seconds:.0f} s")
            raise PublishFailed(str(sent[delivered].exception()), delivered)
        return [Delivered(done.topic, done.partition, done.offset) for done in (future.result() for future in sent)]

    async def close(self) -> None:
        """Wait a moment for what is in flight, then disconnect."""
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await producer.flush()
            await self._give_up(producer, "the publisher was closed")

    async def _connect(self) -> AIOKafkaProducer | None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,  # acks=all, retried for ever, in order within a partition
            linger_ms=self._linger_ms,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_TARIFF_BYTES,
            request_timeout_ms=20_000,
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


def _leading(sent: list[asyncio.Future[Delivered]]) -> int:
    count = 0
    for future in sent:
        if not future.done() or future.cancelled() or future.exception() is not None:
            break
        count += 1
    return count


async def _drop(producer: AIOKafkaProducer) -> None:
    """Close without waiting for undelivered batches: connections first, or the sender waits for its requests."""
    with suppress(kafka_errors.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.client.close()
            await producer._sender.close()
    producer._closed = True  # `stop` would flush first; this only silences its "unclosed" warning
