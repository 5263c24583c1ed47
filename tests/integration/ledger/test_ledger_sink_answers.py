"""The sink's closed set of answers: refusals, a server that is away, and the unknown outcome of COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

import pytest
from ledger_support import Ledger, blocked_on_lock, charge, make_batch, names

from billing.ledger.database import open_pool
from billing.ledger.sink import PostgresSink
from billing.ledger.snapshots import positions
from billing.settings import Settings
from billing.stream.record import Position
from billing.stream.sink import (
    Applied,
    Behind,
    Claimed,
    Fenced,
    Halted,
    Owner,
    ReadOnly,
    Refused,
    Tended,
    Unavailable,
)


@dataclass
class CuttingProxy:
    """Passes bytes between a client and PostgreSQL, and once cuts the connection at COMMIT: before the server has
    seen it, or after the server has done it and before the client hears of it."""

    host: str
    port: int
    cut: str | None = None  # "before", "after"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port)
        deaf = asyncio.Event()
        down = asyncio.create_task(self._down(upstream_reader, writer, deaf))
        try:
            while data := await reader.read(65536):
                if b"COMMIT;" in data and self.cut is not None:
                    when, self.cut = self.cut, None
                    if when == "before":
                        break
                    deaf.set()
                    upstream_writer.write(data)
                    await upstream_writer.drain()
                    await asyncio.wait_for(down, 10)
                    break
                upstream_writer.write(data)
                await upstream_writer.drain()
        except ConnectionError:
            pass
        finally:
            down.cancel()
            for side in (writer, upstream_writer):
                side.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if deaf.is_set():
                if b"COMMIT\0" in data:
                    return
                continue
            writer.write(data)


@asynccontextmanager
async def cutting(dsn: str) -> AsyncIterator[tuple[CuttingProxy, str]]:
    parts = urlsplit(dsn)
    proxy = CuttingProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        user = parts.netloc.rpartition("@")[0]  # with its password, where there is one
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
    finally:
        server.close()


@pytest.mark.parametrize(("cut", "committed"), [("before", False), ("after", True)])
async def test_s26_after_an_unknown_commit_the_position_decides(ledger: Ledger, cut: str, committed: bool) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    batch = make_batch(await ledger.claim(), 0, [charge(0, one, "a")])
    async with cutting(ledger.settings.postgres_dsn) as (proxy, dsn):
        pool = await open_pool(dsn)
        sink = PostgresSink(pool, ledger.settings)
        proxy.cut = cut
        assert isinstance(await sink.apply(batch), Unavailable)
        again = await sink.apply(batch)
        pool.terminate()
    assert again == (Behind(Position(1, batch.fingerprint)) if committed else Applied(1))
    assert await ledger.used(one) == 600_000
    await ledger.verified()


async def test_s26_a_connection_killed_in_the_middle_leaves_nothing(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    batch = make_batch(await ledger.claim(), 0, [charge(0, one, "a")])
    async with ledger.pool.acquire() as other, other.transaction():
        await other.execute("select * from balances for update")
        applying = asyncio.create_task(ledger.sink.apply(batch))
        await blocked_on_lock(ledger.pool)
        await other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
        assert isinstance(await applying, Unavailable)
    assert (await positions(ledger.pool))[0].position == Position(0, "")
    assert await ledger.sink.apply(batch) == Applied(1)
    assert await ledger.used(one) == 600_000


async def test_s39_a_cancelled_apply_drops_its_connection_and_leaves_nothing(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    batch = make_batch(await ledger.claim(), 0, [charge(0, one, "a")])
    async with ledger.pool.acquire() as other, other.transaction():
        await other.execute("select * from balances for update")
        applying = asyncio.create_task(ledger.sink.apply(batch))
        await blocked_on_lock(ledger.pool)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
    assert await ledger.sink.apply(batch) == Applied(1)
    assert await ledger.used(one) == 600_000


async def test_claims_raise_the_epoch_and_go_on_at_the_position(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    topic = ledger.settings.topics.usage
    first = await ledger.sink.claim(0, "a")
    assert first == Claimed(Owner(1, "a"), {topic: Position(0, "")})
    batch = make_batch(Owner(1, "a"), 0, [charge(5, one, "a")])
    assert await ledger.sink.apply(batch) == Applied(6)
    assert await ledger.sink.claim(0, "b") == Claimed(Owner(2, "b"), {topic: Position(6, batch.fingerprint)})
    assert await ledger.sink.tend(Owner(2, "b"), 0, at_end=True) == Tended(open_holds=False)


async def test_answers_come_in_their_order_of_precedence(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    stale = await ledger.claim()
    owner = await ledger.claim()
    wrong_everywhere = make_batch(stale, 99, [charge(99, "nobody", "a")])
    apply = ledger.sink.apply
    assert isinstance(await apply(wrong_everywhere), Fenced)
    await ledger.sink.halt(owner, 0, "the log was truncated")
    assert await apply(wrong_everywhere) == Halted("the log was truncated")
    await ledger.pool.execute("update ledger_meta set timeline = 'other'")
    assert isinstance(await apply(wrong_everywhere), Refused)
    assert isinstance(await ledger.sink.claim(0, "c"), Refused)


async def test_a_halted_partition_stays_halted_for_later_claims(ledger: Ledger) -> None:
    await ledger.sink.halt(await ledger.claim(), 0, "fingerprint mismatch")
    assert await ledger.sink.claim(0, "b") == Halted("fingerprint mismatch")
    assert isinstance(await ledger.sink.claim(1, "b"), Claimed)


async def test_a_ledger_of_another_build_is_refused(ledger: Ledger) -> None:
    other = PostgresSink(ledger.pool, replace(ledger.settings, partitions=12))
    assert await other.claim(0, "a") == Refused("the ledger was made for 8 partitions, not 12")
    await ledger.pool.execute("delete from schema_migrations where version > 3")
    assert isinstance(await ledger.sink.claim(0, "a"), Refused)


async def test_an_empty_database_is_refused(settings: Settings) -> None:
    pool = await open_pool(settings.postgres_dsn)
    answer = await PostgresSink(pool, settings).claim(0, "a")
    await pool.close()
    assert isinstance(answer, Refused)
    assert "not migrated" in answer.reason


async def test_a_server_that_cannot_write_is_read_only(ledger: Ledger) -> None:
    batch = make_batch(await ledger.claim(), 0, [])
    database = urlsplit(ledger.settings.postgres_dsn).path.strip("/")
    await ledger.pool.execute(f"alter database {database} set default_transaction_read_only = on")
    pool = await open_pool(ledger.settings.postgres_dsn)
    sink = PostgresSink(pool, ledger.settings)
    assert isinstance(await sink.apply(batch), ReadOnly)
    assert isinstance(await sink.claim(0, "a"), ReadOnly)
    await pool.close()


async def test_a_server_that_is_away_is_unavailable(settings: Settings, unused_port: int) -> None:
    pool = await open_pool(f"postgresql://postgres@127.0.0.1:{unused_port}/none")
    sink = PostgresSink(pool, settings)
    assert isinstance(await sink.claim(0, "a"), Unavailable)
    assert isinstance(await sink.apply(make_batch(Owner(1, "a"), 0, [])), Unavailable)
    await sink.halt(Owner(1, "a"), 0, "best effort")
    await pool.close()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
