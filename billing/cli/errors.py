"""Trouble with a server, said in one line."""

from __future__ import annotations

from billing.stream.log import LogAway

_CLIENTS = {"redis": "Redis", "asyncpg": "PostgreSQL", "aiokafka": "Kafka"}


def explain(error: BaseException) -> str | None:
    """One line for an error that means "a server is away or refused us"; None for a bug, which keeps its traceback."""
    server = "Kafka" if isinstance(error, LogAway) else _CLIENTS.get(type(error).__module__.split(".")[0])
    if server is not None:
        return f"{server}: {_first_line(error)}"
    if isinstance(error, TimeoutError):
        return f"timed out{': ' + _first_line(error) if str(error) else ''}"
    if isinstance(error, ConnectionError | OSError):
        return f"a server does not answer: {_first_line(error)}"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
