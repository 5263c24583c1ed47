"""What one would write first: one record at a time, one awaited HINCRBY each, Kafka's own commits.

Decoding and pricing are the pipeline's, so that only the manner differs. It may lose and repeat effects at every
crash, and checks nothing.
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.task import Task
from billing.lab.bench.counter import Counter
from billing.usage.live import HOLD, LiveClassifier


async def run(parts: Parts, task: Task, counter: Counter) -> None:
    """Until it is killed, or the records end."""
    settings, topic = parts.settings, parts.settings.topics.usage
    classify = LiveClassifier(parts.live.catalogue, settings.partitions).classify
    redis = Redis.from_url(settings.redis_url)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=f"bench-naive-{counter.value}-{task.commit_each}",
        enable_auto_commit=not task.commit_each,
    )
    await consumer.start()
    try:
        pairs = {TopicPartition(topic, partition): begin for partition, begin in enumerate(task.begin)}
        consumer.assign(list(pairs))
        for pair, begin in pairs.items():
            consumer.seek(pair, begin)
        async for record in consumer:
            match classify(record):
                case (code, _, account, _, amount, _, _, _):
                    column = "held" if code == HOLD else "used"
                    await redis.hincrby(f"naive:{column}:{record.partition}", account, amount)
            if task.commit_each:
                await consumer.commit()
            counter.value += 1
    finally:
        await consumer.stop()
        await redis.aclose()
