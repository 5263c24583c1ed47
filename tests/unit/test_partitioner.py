"""The partitioner agrees with aiokafka's (and so with Java's), and with vectors of Java's own tests."""

from __future__ import annotations

import random

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2

from billing.usage.partitioner import home_partition, murmur2


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hashes_as_javas_client(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_hashes_as_aiokafka_for_every_length_and_byte() -> None:
    rng = random.Random(7)
    for length in range(70):
        for _ in range(10):
            key = rng.randbytes(length)
            assert murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF


def test_accounts_spread_over_all_partitions() -> None:
    homes = [home_partition(f"acct-{n}", 8) for n in range(8000)]
    assert set(homes) == set(range(8))
    assert all(800 < homes.count(partition) < 1200 for partition in range(8))
