"""Trouble with a server, said in one line of plain words. A driver's own words are kept only where we have none."""

from __future__ import annotations

import errno
from traceback import walk_tb

from billing.stream.log import LogAway

_CLIENTS = {"redis": "Redis", "asyncpg": "PostgreSQL", "aiokafka": "Kafka"}
_SETTINGS = {
    "Redis": "BILLING_REDIS_URL",
    "PostgreSQL": "BILLING_POSTGRES_DSN",
    "Kafka": "BILLING_KAFKA_BOOTSTRAP",
}
_OF_CLASS = {
    # asyncpg's
    "InvalidPasswordError": "refuses the login",
    "InvalidAuthorizationSpecificationError": "refuses the login",
    "InvalidCatalogNameError": "has no such database",
    "InsufficientPrivilegeError": "this user may not do that; the ledger's owner may (BILLING_POSTGRES_OWNER_DSN)",
    "UndefinedTableError": "the ledger is not migrated to this build: run `billing migrate`",
    "UndefinedColumnError": "the ledger is not migrated to this build: run `billing migrate`",
    "UndefinedFunctionError": "the ledger is not migrated to this build: run `billing migrate`",
    "ReadOnlySQLTransactionError": "is read-only (a standby?)",
    "DiskFullError": "has no space left",
    "TooManyConnectionsError": "has no connection left",
    "CannotConnectNowError": "is starting up or shutting down",
    "AdminShutdownError": "is shutting down",
    "QueryCanceledError": "did not answer in time",
    "LockNotAvailableError": "did not answer in time",
    "ConnectionDoesNotExistError": "the connection was lost",
    "PostgresConnectionError": "the connection was lost",
    # redis-py's
    "AuthenticationError": "refuses the login",
    "NoPermissionError": "this user may not do that",
    "ReadOnlyError": "is a read-only replica",
    "OutOfMemoryError": "has no memory left",
    "BusyLoadingError": "is still loading its data",
    "MasterNotFoundError": "sentinels know no primary",
    # aiokafka's
    "KafkaConnectionError": "cannot be reached",
    "NodeNotReadyError": "cannot be reached",
    "KafkaTimeoutError": "did not answer in time",
    "RequestTimedOutError": "did not answer in time",
    "TopicAuthorizationFailedError": "this user may not do that",
    "UnknownTopicOrPartitionError": "has no such topic: run `billing migrate`",
    # anyone's
    "TimeoutError": "did not answer in time",
    "ConnectionRefusedError": "cannot be reached: connection refused",
    "ConnectionResetError": "the connection was lost",
    "BrokenPipeError": "the connection was lost",
    "gaierror": "cannot be reached: no such host",
    "ConnectionError": "cannot be reached",
}
_OF_NUMBER = {
    errno.ECONNREFUSED: "cannot be reached: connection refused",
    errno.EHOSTUNREACH: "cannot be reached: no route to it",
    errno.ENETUNREACH: "cannot be reached: no route to it",
}


def explain(error: BaseException) -> str | None:
    """One line for an error that means "a server is away or refused us"; None for a bug, which keeps its traceback."""
    server = "Kafka" if isinstance(error, LogAway) else _CLIENTS.get(type(error).__module__.split(".")[0])
    if server is None and isinstance(error, TimeoutError | OSError):
        server = _raised_in(error)
    if server is not None:
        words = in_plain_words(error)
        where = "" if "billing" in words.lower() or words == _first_line(error) else f" ({_SETTINGS[server]})"
        return f"{server}: {words}{where}"
    if isinstance(error, TimeoutError):
        return f"timed out{': ' + _first_line(error) if str(error) else ''}"
    if isinstance(error, OSError) and _known(error) is not None:
        return f"a server {_known(error)}"
    return f"a server does not answer: {_first_line(error)}" if isinstance(error, OSError) else None


def in_plain_words(error: BaseException) -> str:
    """What a client's error means, in our words if we have any."""
    ours = type(error).__module__.startswith("billing.")
    cause = error.__cause__ if ours else None
    return _known(error) or (_known(cause) if cause is not None else None) or _first_line(error)


def _known(error: BaseException) -> str | None:
    number = getattr(error, "errno", None)
    if number in _OF_NUMBER:
        return _OF_NUMBER[number]
    return next((_OF_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _OF_CLASS), None)


def _raised_in(error: BaseException) -> str | None:
    """Whose client the error came through: an address that refuses is a plain OSError."""
    for frame, _line in walk_tb(error.__traceback__):
        server = _CLIENTS.get(str(frame.f_globals.get("__name__")).split(".")[0])
        if server is not None:
            return server
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
