"""The partition of a key, as Java's client and aiokafka choose it (librdkafka: `partitioner=murmur2_random`)."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Kafka's MurmurHash2, 32 bits, unsigned."""
    length = len(data)
    whole = length & ~3
    h = _SEED ^ length
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def home_partition(account: str, partitions: int) -> int:
    """The home partition of an account in topics of `partitions` partitions."""
    return (murmur2(account.encode()) & 0x7FFFFFFF) % partitions
