"""What an exception from asyncpg means to a caller that must go on."""

from __future__ import annotations

from enum import Enum

import asyncpg
from asyncpg import exceptions


class Trouble(Enum):
    """AWAY: no connection, no answer in time, or an unknown outcome; wait and try again.
    READ_ONLY: it answers but cannot write. RETRY: the transaction lost against another one; nothing was applied.
    NOT_MIGRATED: tables are missing. OVERFLOW: a total does not fit; an operator must look.
    BUG: none of these; raise it."""

    AWAY = "away"
    READ_ONLY = "read_only"
    RETRY = "retry"
    NOT_MIGRATED = "not_migrated"
    OVERFLOW = "overflow"
    BUG = "bug"


_BY_CLASS: tuple[tuple[tuple[type[BaseException], ...], Trouble], ...] = (
    (
        (
            exceptions.DeadlockDetectedError,
            exceptions.SerializationError,
            # after a migration; asyncpg has dropped its statement cache when it raises this
            exceptions.InvalidCachedStatementError,
            exceptions.OutdatedSchemaCacheError,
        ),
        Trouble.RETRY,
    ),
    (
        (
            exceptions.ReadOnlySQLTransactionError,
            exceptions.DiskFullError,
        ),
        Trouble.READ_ONLY,
    ),
    ((exceptions.UndefinedTableError, exceptions.UndefinedColumnError), Trouble.NOT_MIGRATED),
    ((exceptions.NumericValueOutOfRangeError,), Trouble.OVERFLOW),
    (
        (
            OSError,  # includes TimeoutError and refused or reset connections
            exceptions.PostgresConnectionError,
            exceptions.OperatorInterventionError,  # shutdown, crash, starting up, statement timeout
            exceptions.InsufficientResourcesError,
            exceptions.LockNotAvailableError,
            exceptions.IdleInTransactionSessionTimeoutError,
            exceptions.InvalidCatalogNameError,  # the database is being restored under this name
            exceptions.TargetServerAttributeNotMatched,
            exceptions.InternalClientError,  # asyncpg has lost track of a connection that broke in a COPY
        ),
        Trouble.AWAY,
    ),
)


def trouble_of(error: BaseException) -> Trouble:
    """The one thing to do about `error`."""
    for classes, trouble in _BY_CLASS:
        if isinstance(error, classes):
            return trouble
    # asyncpg's own: "connection is closed", "pool is closing"; wrong arguments are ValueErrors too, and ours
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return Trouble.AWAY
    return Trouble.BUG


def describe(error: BaseException) -> str:
    """One line for a log or an answer: the class and the first line of the message, without details (R12)."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
