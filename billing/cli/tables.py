"""Tables of text in which amounts stand under each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def table(rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...], indent: str = "") -> Iterator[str]:
    """Rows in columns, those of `right` aligned to the right, amounts among them at the decimal point. The first may
    be a header."""
    if not rows:
        return
    columns = [list(column) for column in zip(*rows, strict=True)]
    for index in right:
        columns[index] = _at_the_point(columns[index])
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        padded = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield f"{indent}{'  '.join(padded)}".rstrip()


def _at_the_point(cells: list[str]) -> list[str]:
    """Amounts with as many places for decimals as the longest needs; everything else as it is."""
    decimals = [len(cell) - cell.index(".") for cell in cells if _AMOUNT.fullmatch(cell) and "." in cell]
    most = max(decimals, default=0)
    return [
        cell + " " * (most - (len(cell) - cell.index(".") if "." in cell else 0)) if _AMOUNT.fullmatch(cell) else cell
        for cell in cells
    ]
