"""The same function fed from memory: runner, interpreter, packing and store as always, but no Kafka while it runs."""

from __future__ import annotations

from billing.balance.store import RedisSink
from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.preloaded import PreloadedMembership, preload
from billing.lab.bench.arms.task import Task
from billing.stream.runner import Runner


async def run(parts: Parts, task: Task) -> None:
    """Until it is killed; the store's positions tell how far it is."""
    topics = parts.settings.topics
    records = await preload(parts.reader, topics.usage, task)
    plan = parts.plan(RedisSink(parts.functions, topics), "bench-memory")
    await Runner(plan, lambda: PreloadedMembership(topics.usage, task, records)).run()
