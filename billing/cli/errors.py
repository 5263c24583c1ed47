"""Trouble with a server, said in one line."""

from __future__ import annotations

import logging
import sys

import structlog

from billing.stream.log import LogAway

_CLIENTS = {"redis": "Redis", "asyncpg": "PostgreSQL", "aiokafka": "Kafka"}


def quiet() -> None:
    """What a library or a retry has to say must not stand beside a command's one line, nor in its JSON on stdout.
    Consumer processes configure their own logs afterwards."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


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
