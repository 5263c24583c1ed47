"""JSON logs that carry allow-listed fields only (R12): never payloads, DSNs or keys."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

ALLOWED_FIELDS = frozenset(
    {
        # structlog's own
        *("event", "level", "timestamp", "exception", "process"),
        # where
        *("topic", "topics", "partition", "partitions", "offset", "from_offset", "to_offset", "position", "end"),
        *("start", "lane", "lanes", "group", "member", "generation", "epoch", "incarnation", "timeline", "version"),
        *("expected", "found", "server", "service", "port", "address", "pid", "path", "role", "run_id"),
        # what
        *("account", "currency", "ledger_seq", "plan", "kind", "reason", "answer", "state", "outcome", "check"),
        *("count", "records", "ops", "lag", "attempt", "signal", "dropped_fields", "error", "detail", "migration"),
        *("finding", "repair", "nice"),
        *("intent", "payment", "episode", "status", "amount_micros", "horizon_ms", "needs_horizon_ms"),
        # how long
        *("seconds", "duration_ms", "wait_seconds", "retry_in_seconds", "timeout_seconds", "log_time_ms"),
    }
)

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's log records to stderr, one JSON object a line."""
    shared = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _name_process(process),
        allow_listed,
    ]
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # aiokafka logs every reconnect attempt as an error; the adapter says the same once, with back-off
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _name_process(process: str) -> Any:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def allow_listed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop every field whose name is not allowed (its name is kept), and credentials inside URLs."""
    kept: EventDict = {}
    dropped = []
    for name, value in event.items():
        if name in ALLOWED_FIELDS or name.startswith("_"):
            kept[name] = _CREDENTIALS.sub("***@", value) if isinstance(value, str) else value
        else:
            dropped.append(name)
    if dropped:
        kept["dropped_fields"] = sorted(dropped)
    return kept
