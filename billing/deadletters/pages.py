"""One thing after another, several at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")

PAGE = 500


async def paged(things: AsyncIterator[T], size: int = PAGE) -> AsyncIterator[list[T]]:
    """Lists of at most `size`, none of them empty."""
    page: list[T] = []
    async for thing in things:
        page.append(thing)
        if len(page) >= size:
            yield page
            page = []
    if page:
        yield page
