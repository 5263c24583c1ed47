"""Connections to the ledger. Every wait here has a deadline (R11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[Any]"
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

CONNECT_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0
RELEASE_TIMEOUT_S = 5.0

BROKEN: tuple[type[BaseException], ...] = (
    asyncio.CancelledError,
    TimeoutError,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""After these nobody knows what a connection would say next."""


async def open_pool(
    dsn: str, *, max_size: int = 8, command_timeout_s: float = COMMAND_TIMEOUT_S, application_name: str = "billing"
) -> Pool:
    """A pool that connects when first used, so that PostgreSQL may be away when a process starts."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        max_inactive_connection_lifetime=300,
        server_settings=_server_settings(application_name, command_timeout_s),
    )


async def connect(
    dsn: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S, application_name: str = "billing"
) -> asyncpg.Connection[Any]:
    """One connection outside any pool (migrations, the relay's locks)."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings=_server_settings(application_name, command_timeout_s),
    )


def _server_settings(application_name: str, command_timeout_s: float) -> dict[str, str]:
    """The server gives up a little after the client would have, should the client be gone. JIT costs more than
    it saves on statements of a few milliseconds."""
    return {
        "application_name": application_name,
        "statement_timeout": str(int(command_timeout_s * 1000) + 1000),
        "idle_in_transaction_session_timeout": str(int(command_timeout_s * 1000) + 30_000),
        "jit": "off",
        "timezone": "UTC",
    }


@asynccontextmanager
async def lease(pool: Pool, *, timeout_s: float = ACQUIRE_TIMEOUT_S) -> AsyncIterator[Connection]:
    """A connection of the pool, given back afterwards. After a cancellation or a deadline the reply may still be
    on its way, and after a crash of the server asyncpg may believe that a COPY goes on: the connection is dropped
    instead (S39)."""
    connection = await pool.acquire(timeout=timeout_s)
    try:
        yield connection
    except BROKEN:
        connection.terminate()
        raise
    finally:
        await pool.release(connection, timeout=RELEASE_TIMEOUT_S)


@asynccontextmanager
async def transaction(pool: Pool, *, timeout_s: float = ACQUIRE_TIMEOUT_S) -> AsyncIterator[Connection]:
    """A leased connection inside a READ COMMITTED transaction: committed at the end, rolled back on an exception."""
    async with lease(pool, timeout_s=timeout_s) as connection, connection.transaction():
        yield connection


async def fetch(pool: Pool, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Rows of one statement; unlike pool.fetch, waiting for a connection has a deadline too."""
    async with lease(pool) as connection:
        rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
        return rows


async def fetchrow(pool: Pool, sql: str, *arguments: object) -> asyncpg.Record | None:
    """The first row of one statement, or None."""
    async with lease(pool) as connection:
        row: asyncpg.Record | None = await connection.fetchrow(sql, *arguments)
        return row


class RollBack(Exception):
    """Raised inside a transaction to leave it without effects, carrying the answer to give instead."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
