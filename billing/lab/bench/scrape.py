"""What the store and a consumer say about themselves: call times, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from billing.lab.bench.stats import histogram_percentile

DEADLINE_SECONDS = 5.0


async def call_micros(redis: Redis) -> dict[str, float]:
    """Percentiles of FCALL by the server's own clock since the last CONFIG RESETSTAT, in us: p50, p99, p99.9, p100."""
    info: Mapping[str, Any] = await redis.info("latencystats")
    found = info.get("latency_percentiles_usec_fcall", {})
    return {name: float(value) for name, value in found.items()}


async def calls(redis: Redis) -> tuple[int, float]:
    """How many FCALLs, and us in them altogether, since the last CONFIG RESETSTAT."""
    info: Mapping[str, Any] = await redis.info("commandstats")
    found = info.get("cmdstat_fcall", {})
    return int(found.get("calls", 0)), float(found.get("usec", 0))


async def used_bytes(redis: Redis) -> int:
    """Memory that data takes: used_memory without the clients' buffers."""
    info: Mapping[str, Any] = await redis.info("memory")
    return int(info["used_memory"]) - int(info.get("mem_clients_normal", 0))


async def apply_seconds(port: int, topic: str) -> dict[float, float]:
    """A consumer's own histogram of `apply` (client side, waiting included): cumulative counts by upper bound in s."""
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        text = await answer.text()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "billing_stream_apply_seconds_bucket" and sample.labels["topic"] == topic
    }


def client_millis(buckets: Mapping[float, float]) -> dict[str, float]:
    """p50 and p99.9 in ms."""
    return {name: 1000 * histogram_percentile(buckets, share) for name, share in (("p50", 0.5), ("p99.9", 0.999))}


