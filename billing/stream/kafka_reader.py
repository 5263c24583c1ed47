"""Reading a Kafka log outside any group: bounds, single records, ranges, and following a partition for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient

from billing.stream.kafka import being_cancelled, require_c_extension
from billing.stream.log import Bounds, Fetched, LogAway, OutOfRange
from billing.stream.record import Record

T = TypeVar("T")

LONG_POLL_MS = 20  # requests of a connection queue behind its long poll, so it must be short
REQUEST_TIMEOUT_MS = 10_000
FOLLOW_LONG_POLL_MS = 500
FOLLOW_BATCH = 2_000


class LogReader:
    """A billing.stream.log.Reader, and more. Connects when first used, again after a failure; every call has
    `deadline_seconds` and raises LogAway beyond it. Use `async with`, or call `close`."""

    def __init__(self, bootstrap: str, *, client_id: str = "billing-reader", deadline_seconds: float = 10.0) -> None:
        require_c_extension()
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._deadline_seconds = deadline_seconds
        self._consumer: AIOKafkaConsumer | None = None
        self._connecting = asyncio.Lock()
        self._positioned = asyncio.Lock()  # one read at a time: they share the consumer's assignment

    async def __aenter__(self) -> LogReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; a later call connects again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _stop(consumer)

    # --- what there is ----------------------------------------------------------------------------------------

    async def partition_count(self, topic: str) -> int | None:
        """None where there is no such topic."""
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap, client_id=self._client_id, request_timeout_ms=REQUEST_TIMEOUT_MS
        )
        try:
            async with _answered_within(self._deadline_seconds):
                await admin.start()
                described = await admin.describe_topics()  # all: asking for one by name may create it
        finally:
            with suppress(kafka_errors.KafkaError, OSError):
                await admin.close()
        return next((len(found["partitions"]) for found in described if found["topic"] == topic), None)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """First offset kept and last stable offset, as of now."""
        pair = TopicPartition(topic, partition)
        starts = await self._ask(lambda consumer: consumer.beginning_offsets([pair]))
        ends = await self._ask(lambda consumer: consumer.end_offsets([pair]))
        return Bounds(starts[pair], ends[pair])

    async def ends(self, partitions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Last stable offsets, as of now, in one request per broker."""
        pairs = [TopicPartition(*pair) for pair in partitions]
        found = await self._ask(lambda consumer: consumer.end_offsets(pairs))
        return {(pair.topic, pair.partition): end for pair, end in found.items()}

    async def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose LogAppendTime is at or after `time_ms`; the end where there is none."""
        pair = TopicPartition(topic, partition)
        end = (await self.ends([(topic, partition)]))[topic, partition]  # before: a later record may be newer
        found = await self._ask(lambda consumer: consumer.offsets_for_times({pair: max(0, time_ms)}))
        return end if found[pair] is None else int(found[pair].offset)

    # --- reading ----------------------------------------------------------------------------------------------

    async def record_at(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at exactly this offset; None where there is none (any more)."""
        pair = TopicPartition(topic, partition)
        async with self._positioned:
            return await self._ask(lambda consumer: _first_at(consumer, pair, offset))

    async def read(self, topic: str, partition: int, from_: int, to: int) -> AsyncGenerator[Record]:
        """Every record with from_ <= offset < to, in order. Raises OutOfRange when `from_` is not in the log, and
        LogAway when nothing moves for `deadline_seconds`. Wrap in contextlib.aclosing when leaving early."""
        if from_ >= to:
            return
        async with aclosing(self.follow(topic, partition, from_)) as fetches:
            async for fetched in fetches:
                for record in fetched.records:
                    if record.offset >= to:
                        return
                    yield record
                if fetched.next_offset >= to:
                    return

    async def follow(self, topic: str, partition: int, from_: int) -> AsyncGenerator[Fetched]:
        """Read from `from_` on, for ever, over a connection of its own. A Fetched may be without records: its
        next_offset moved over a hole, or nothing came for a while (but Kafka answered). Raises LogAway, OutOfRange."""
        pair = TopicPartition(topic, partition)
        consumer = self._make(FOLLOW_LONG_POLL_MS)
        try:
            async with _answered_within(self._deadline_seconds):
                await consumer.start()
            consumer.assign([pair])
            consumer.seek(pair, from_)
            position = from_
            while True:
                async with _answered_within(self._deadline_seconds):
                    records, after = await _next(consumer, pair, self._deadline_seconds / 2)
                if not records and after == position:  # quiet, or away? ask something that needs an answer
                    async with _answered_within(self._deadline_seconds):
                        end = (await consumer.end_offsets([pair]))[pair]
                    if position > end:
                        raise OutOfRange(f"{topic}-{partition} ends at {end}, before {position}")
                yield Fetched(position, records, after)
                position = after
        finally:
            await _stop(consumer)

    # --- the connection -----------------------------------------------------------------------------------------

    def _make(self, long_poll_ms: int) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=long_poll_ms,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )

    async def _ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        try:
            async with _answered_within(self._deadline_seconds):
                return await question(await self._connected())
        except LogAway:
            await self.close()  # begin again with a new connection and new metadata
            raise

    async def _connected(self) -> AIOKafkaConsumer:
        async with self._connecting:
            if self._consumer is None:
                consumer = self._make(LONG_POLL_MS)
                try:
                    await consumer.start()
                except BaseException:
                    await _stop(consumer)
                    raise
                self._consumer = consumer
            return self._consumer


class _answered_within:
    """Deadline and Kafka's errors as LogAway, but out-of-range as OutOfRange."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as overdue:
            raise LogAway("no answer from Kafka within the deadline") from overdue
        if isinstance(error, asyncio.CancelledError) and not being_cancelled():
            raise LogAway("the client was closed") from error
        if isinstance(error, kafka_errors.OffsetOutOfRangeError):
            raise OutOfRange(str(error)) from error
        if isinstance(error, kafka_errors.KafkaError | kafka_errors.ConsumerStoppedError | OSError):
            raise LogAway(str(error) or type(error).__name__) from error


async def _first_at(consumer: AIOKafkaConsumer, pair: TopicPartition, offset: int) -> Record | None:
    consumer.assign([pair])
    consumer.seek(pair, offset)
    try:
        end = (await consumer.end_offsets([pair]))[pair]
        while await consumer.position(pair) < end:
            batches = await consumer.getmany(pair, timeout_ms=200, max_records=1)
            for record in batches.get(pair, ()):
                found: Record = record
                return found if found.offset == offset else None
    except kafka_errors.OffsetOutOfRangeError:
        pass  # removed since the bounds were read
    finally:
        consumer.pause(pair)  # fetch nothing ahead; the next read assigns anew
    return None


async def _next(consumer: AIOKafkaConsumer, pair: TopicPartition, wait_seconds: float) -> tuple[list[Record], int]:
    """Records, or none when nothing came in time, and the consumer's position behind them."""
    before = await consumer.position(pair)
    batches = await consumer.getmany(pair, timeout_ms=min(1000, int(wait_seconds * 1000)), max_records=FOLLOW_BATCH)
    records = batches.get(pair, [])
    after = await consumer.position(pair)
    if records and records[0].offset < before:
        raise LogAway(f"{pair} answered offset {records[0].offset} at {before}")
    return records, after


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(5):
            await consumer.stop()
    except (kafka_errors.KafkaError, OSError, TimeoutError):
        pass
    except asyncio.CancelledError:
        if being_cancelled():
            raise
