"""A number that one process counts up and another reads, through a mapped file: costs neither of them anything."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_FORM = struct.Struct("<q")


class Counter:
    """`path` is made when it is not there; the count begins at 0."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.truncate(_FORM.size)
        self._map = mmap.mmap(self._file.fileno(), _FORM.size)

    @property
    def value(self) -> int:
        count: int = _FORM.unpack_from(self._map)[0]
        return count

    @value.setter
    def value(self, count: int) -> None:
        _FORM.pack_into(self._map, 0, count)

    def close(self) -> None:
        self._map.close()
        self._file.close()
