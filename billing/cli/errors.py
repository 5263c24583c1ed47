"""Trouble with a server, said in one line."""

from __future__ import annotations

from traceback import walk_tb

from billing.stream.log import LogAway

_CLIENTS = {"redis": "Redis", "asyncpg": "PostgreSQL", "aiokafka": "Kafka"}


def explain(error: BaseException) -> str | None:
    """One line for an error that means "a server is away or refused us"; None for a bug, which keeps its traceback."""
    server = "Kafka" if isinstance(error, LogAway) else _CLIENTS.get(type(error).__module__.split(".")[0])
    if server is None and isinstance(error, TimeoutError | OSError):
        server = _raised_in(error)
    if server is not None:
        return f"{server}: {_first_line(error)}"
    if isinstance(error, TimeoutError):
        return f"timed out{': ' + _first_line(error) if str(error) else ''}"
    if isinstance(error, OSError):
        return f"a server does not answer: {_first_line(error)}"
    return None


def _raised_in(error: BaseException) -> str | None:
    """Whose client the error came through: an address that refuses is a plain OSError."""
    for frame, _line in walk_tb(error.__traceback__):
        server = _CLIENTS.get(str(frame.f_globals.get("__name__")).split(".")[0])
        if server is not None:
            return server
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
