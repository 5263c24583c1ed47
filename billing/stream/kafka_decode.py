"""Record batches of an answer as aiokafka 0.14 reads them, but for two things. Checksums are worked out by the
processor: the client's own way costs 0.25 us a record, as much as making it. And a header name that is not UTF-8 raises
in the middle of a fetch, for ever, and would hold its partition (R9): such batches are read once more in pure Python,
with the name's bytes escaped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, SupportsIndex

import google_crc32c
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_BATCH_HEAD = struct.Struct(">qi")  # base offset, length of what follows
_SUMMED = 21  # a batch's checksum is of its bytes from here on
_BY_PROCESSOR = google_crc32c.implementation == "c"  # not where it was installed without a wheel


class KeptRecords:
    """aiokafka's MemoryRecords, and the bytes that it was made of."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._records = MemoryRecords(raw)
        self._begin = self._end = 0  # of the batch that came last
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        _, length = _BATCH_HEAD.unpack_from(self.raw, self._end)
        self._begin, self._end = self._end, self._end + _BATCH_HEAD.size + length
        return batch

    def intact(self, batch: Any) -> bool:
        """Whether `batch`, which came last, matches its checksum."""
        if not _BY_PROCESSOR:
            return bool(batch.validate_crc())
        summed = google_crc32c.value(self.raw[self._begin + _SUMMED : self._end])
        return bool(summed == batch.crc)


class _Forgiving(bytearray):
    """Slices decode any bytes: what is not UTF-8 becomes backslash escapes."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return _Forgiving(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return bytes(self).decode(encoding, errors)


class _ForgivingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is untyped
    _buffer: bytearray

    def __iter__(self) -> Any:
        batch = super().__iter__()  # decompresses
        self._buffer = _Forgiving(self._buffer)
        return batch


class ForgivingRecords:
    """The batches of `raw` that end after `from_offset`."""

    def __init__(self, raw: bytes, from_offset: int) -> None:
        self.raw = raw
        self._batches = _batches(raw, from_offset)
        self._next: _ForgivingBatch | None = next(self._batches, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> _ForgivingBatch | None:
        batch, self._next = self._next, next(self._batches, None)
        return batch

    def intact(self, batch: Any) -> bool:
        """Whether `batch` matches its checksum."""
        return bool(batch.validate_crc())


def _batches(raw: bytes, from_offset: int) -> Iterator[_ForgivingBatch]:
    at = 0
    while at + _BATCH_HEAD.size <= len(raw):
        _, length = _BATCH_HEAD.unpack_from(raw, at)
        end = at + _BATCH_HEAD.size + length
        if end > len(raw):  # the broker cuts the last batch off where the fetch size ends
            return
        batch = _ForgivingBatch(bytearray(raw[at:end]))
        if batch.next_offset > from_offset:
            yield batch
        at = end
