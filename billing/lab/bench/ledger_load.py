"""Getting ready to settle: the same accounts in the ledger, the catalogue and Redis."""

from __future__ import annotations

from collections.abc import Callable

from billing.lab.bench.books import Books, open_in_ledger
from billing.lab.bench.ground import Ground
from billing.lab.bench.loading import load
from billing.lab.bench.people import tariffs
from billing.lab.prepare import AUTHOR, NotPrepared
from billing.ledger.tariffs import AlreadyLoaded, Loaded, load_tariff


async def load_all(ground: Ground, books: Books, say: Callable[[str], None]) -> float:
    """Everything; answers accounts a second opened in the ledger. Raises NotPrepared."""
    for tariff in tariffs(ground.timeline):
        answer = await load_tariff(books.pool, tariff.plan, tariff.rates, tariff.currency, author=AUTHOR)
        if not isinstance(answer, Loaded | AlreadyLoaded):
            raise NotPrepared(f"tariff {tariff.plan}: {answer}")
    per_second = await open_in_ledger(books.pool, ground.people, say)
    await load(ground, say)
    return per_second


async def skip_in_redis(ground: Ground, offsets: list[int]) -> None:
    """Set the balance store's usage positions by hand: records before them were the other consumer's alone."""
    async with ground.redis.pipeline(transaction=True) as pipe:
        for key, offset in zip(ground.keys, offsets, strict=True):
            pipe.hset(key, mapping={"usage_offset": offset, "usage_fingerprint": ""})
        await pipe.execute()
