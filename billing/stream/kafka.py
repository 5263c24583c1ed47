"""The real membership of a consumer group, over aiokafka 0.14 (read its source before changing a line here).

What this adapter keeps away from the runner:
- `getmany` waits without a deadline while a rebalance is under way, so every call gets one;
- a client without the C extension decodes so slowly that heartbeats fail: refused at start;
- errors of the group's coordination are only raised by `getmany`, so `check` asks for them once a second;
- its own position may move without a record reaching us (an oversized record, another task): `Fetched.from_offset`;
- nobody is told that a log was cut and grew again, only that a connection ended or a leader changed: `leader`;
- one fetch per broker is in flight at a time and records of a drained partition wait for it: a short long-poll;
- it leaves the group when nobody calls `getmany` for max_poll_interval_ms, but a lane may rightly wait for hours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.record.default_records import DefaultRecordBatch

from billing.stream import kafka_fetch
from billing.stream.log import Fetched, Listener, LogAway, LogBroken, OutOfRange

log = structlog.get_logger(__name__)

LONG_POLL_MS = 50
PARTITION_FETCH_BYTES = 2**20  # of a backlog: what is left over of a fetch makes a batch that is not full
SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 2_000
REBALANCE_TIMEOUT_MS = 30_000
REQUEST_TIMEOUT_MS = 20_000
METADATA_MAX_AGE_MS = 60_000  # within this time added partitions are noticed (S16)
NEVER_MS = 2**31 - 1
FETCH_SECONDS = 5.0  # it waits for nothing but a rebalance under way, which ends our lanes anyway
LEAVE_SECONDS = 5.0

Group = Callable[[], "KafkaMembership"]


class MissingExtension(RuntimeError):
    """aiokafka was installed without its C extension: a configuration to refuse, not to run slowly."""


def require_c_extension() -> None:
    """Raises MissingExtension with one clear line. Every consumer of ours begins here, forgiving of header names."""
    kafka_fetch.install()
    if not DefaultRecordBatch.__module__.startswith("aiokafka.record._crecords"):
        raise MissingExtension(
            "aiokafka runs without its C extension (aiokafka.record._crecords): "
            "install a binary wheel and unset AIOKAFKA_NO_EXTENSIONS"
        )


def kafka_group(
    bootstrap: str,
    group: str,
    topics: Sequence[str],
    *,
    client_id: str = "billing",
    fetch_bytes: int = PARTITION_FETCH_BYTES,
) -> Group:
    """For the runner: makes a new membership at each join. `fetch_bytes` is the most that one answer has of a
    partition. Raises MissingExtension."""
    require_c_extension()
    return lambda: KafkaMembership(bootstrap, group, topics, client_id=client_id, fetch_bytes=fetch_bytes)


class KafkaMembership:
    """One AIOKafkaConsumer; a billing.stream.log.Membership. Connects at `join`, is used once."""

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        *,
        client_id: str,
        fetch_bytes: int = PARTITION_FETCH_BYTES,
    ) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._topics = list(topics)
        self._client_id = client_id
        self._fetch_bytes = fetch_bytes
        self._consumer: AIOKafkaConsumer | None = None

    async def join(self, listener: Listener) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            group_id=self._group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=LONG_POLL_MS,
            max_partition_fetch_bytes=self._fetch_bytes,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            max_poll_interval_ms=NEVER_MS,
        )
        self._consumer = consumer
        try:
            # no topics yet: with them `start` would wait, without a deadline, for the first assignment
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await consumer.start()
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise LogAway(f"cannot join at {self._bootstrap}: {error or type(error).__name__}") from error
        consumer.subscribe(self._topics, listener=_Rebalances(self._topics, listener))

    async def wait(self, partition: int, topics: Sequence[str], timeout_ms: int) -> None:
        pairs = [TopicPartition(topic, partition) for topic in topics]
        await self._fetching().arrival(pairs, timeout_ms / 1000)

    async def fetch(self, partition: int, topics: Sequence[str], *, max_records: int) -> Mapping[str, Fetched]:
        consumer = self._joined()
        pairs = {TopicPartition(topic, partition): topic for topic in topics}
        try:
            # `position` answers at once after a seek: nothing else of this partition runs between it and getmany
            async with asyncio.timeout(FETCH_SECONDS):
                before = {pair: await consumer.position(pair) for pair in pairs}
                batches = await consumer.getmany(*pairs, max_records=max_records)
                after = {pair: await consumer.position(pair) for pair in pairs}
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError) as error:
            raise OutOfRange(str(error)) from error
        except (
            TimeoutError,
            kafka_errors.RecordTooLargeError,
            kafka_errors.CorruptRecordException,
            kafka_errors.TopicAuthorizationFailedError,
        ) as error:
            raise LogAway(str(error) or "no answer to a fetch") from error
        except (kafka_errors.KafkaError, kafka_errors.ConsumerStoppedError) as error:
            raise LogBroken(str(error) or type(error).__name__) from error
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise LogBroken("the client was closed") from error
        return {topic: Fetched(before[pair], batches.get(pair, ()), after[pair]) for pair, topic in pairs.items()}

    def at_hand(self, topic: str, partition: int) -> bool:
        return TopicPartition(topic, partition) in self._fetching()._records

    def take(self, topic: str, partition: int, most: int) -> Fetched | None:
        taken = self._fetching().take(TopicPartition(topic, partition), most)
        return None if taken is None else Fetched(*taken)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        try:
            self._joined().seek(TopicPartition(topic, partition), offset)
        except kafka_errors.KafkaError as error:  # not assigned (any more)
            raise LogBroken(str(error)) from error

    def leader(self, topic: str, partition: int) -> object:
        client = self._joined()._client
        node = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return node, client._conns.get((node, ConnectionGroup.DEFAULT))

    async def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        try:
            await self._joined().commit({TopicPartition(*pair): offset for pair, offset in positions.items()})
        except kafka_errors.KafkaError as error:
            raise LogAway(str(error)) from error

    def check(self) -> None:
        consumer = self._joined()
        # getmany would raise the same, but only from a lane, and there may be none
        coordinator, fetcher = consumer._coordinator, self._fetching()
        if coordinator is None:
            raise LogBroken("the consumer is not started")
        with consumer._subscription.fetch_context():
            pass  # counted as polling, which `take` is not: the client leaves the group when nobody polls
        if fetcher.error_future.done():
            raise LogBroken("the consumer's fetching has ended")
        try:
            coordinator.check_errors()
        except kafka_errors.KafkaError as error:
            raise LogBroken(str(error)) from error

    async def leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await consumer.stop()
        except (kafka_errors.KafkaError, OSError, TimeoutError, asyncio.CancelledError) as error:
            log.warning("group.leave_failed", group=self._group, error=str(error) or type(error).__name__)
            # `stop` cannot be called twice; what it did not reach is closed here
            for part in (consumer._fetcher, consumer._client):
                if part is not None:
                    with suppress(kafka_errors.KafkaError, OSError, asyncio.CancelledError):
                        await part.close()
            if isinstance(error, asyncio.CancelledError) and being_cancelled():
                raise

    def _fetching(self) -> Any:
        """aiokafka's fetcher, which `kafka_fetch` has replaced."""
        fetcher = self._joined()._fetcher
        if fetcher is None:
            raise LogBroken("the consumer is not started")
        return fetcher

    def _joined(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise LogBroken("not a member")
        return self._consumer


def being_cancelled() -> bool:
    """Whether a CancelledError in hand was meant for this task: aiokafka lets those of its own requests and background
    tasks out when a connection or a client is closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Turns topic partitions into partition numbers owned whole; never awaits the consumer (it would deadlock)."""

    def __init__(self, topics: Sequence[str], listener: Listener) -> None:
        self._topics = topics
        self._listener = listener

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._listener.revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        numbers = {pair.partition for pair in assigned}
        whole = {n for n in numbers if all(TopicPartition(topic, n) in assigned for topic in self._topics)}
        if whole != numbers:  # members with other topics in the group: a lane without all its topics would be wrong
            log.error("group.torn_assignment", topics=self._topics, partitions=sorted(numbers - whole))
        self._listener.assigned(whole, numbers - whole)
