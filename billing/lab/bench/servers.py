"""Servers of the benchmark's own, as operators would set them where it costs: AOF on, fsync on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from billing.devstack.choice import Service
from billing.devstack.runs import private_folder
from billing.devstack.stack import LocalStack
from billing.lab.bench.cpu import family_seconds, own_seconds
from billing.settings import Settings

VALKEY = {
    "latency-tracking-info-percentiles": "50 99 99.9 100",
    "auto-aof-rewrite-min-size": "16gb",  # a rewrite forks the server, which would fall on one arm or the other
    "repl-backlog-ttl": "1",  # kept for a replica that is gone, it would cost the arms that come after it
}
POSTGRES = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",  # holds the balances and usage keys of a million accounts (docs/growth.md)
}
SHOWN = (
    *(
        "appendonly",
        "appendfsync",
        "auto-aof-rewrite-min-size",
        "hash-max-listpack-entries",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "wal_level",
        "shared_buffers",
    ),
    "max_wal_size",
)
"""Settings that a table of figures must state."""


@dataclass(frozen=True)
class Servers:
    """Running servers: `settings` for clients, `folder` for logs, `cpu` seconds by server so far, `stated` settings."""

    settings: Settings
    folder: Path
    stated: Mapping[str, str]
    cpu: Mapping[str, Callable[[], float]]
    store_pid: int


@contextmanager
def own_servers(say: Callable[[str], None]) -> Iterator[Servers]:
    """Kafka, Valkey and PostgreSQL as local processes in a folder that goes at the end."""
    with private_folder("bench") as folder:
        stack = LocalStack(folder / "stack", say=say)
        stack[Service.VALKEY].config.update(VALKEY)
        stack[Service.POSTGRES].config.update(POSTGRES)
        with stack:
            pids = {service: server.id.pid for service, server in stack.servers.items() if server.id is not None}
            at = stack.addresses
            settings = Settings(at[Service.KAFKA], at[Service.VALKEY], at[Service.POSTGRES])
            config = {**stack[Service.VALKEY].config, **stack[Service.POSTGRES].config}
            yield Servers(
                settings,
                folder,
                {name: config[name] for name in SHOWN if name in config},
                {
                    "broker": lambda: own_seconds(pids[Service.KAFKA]),
                    "redis": lambda: own_seconds(pids[Service.VALKEY]),
                    "postgres": lambda: family_seconds(pids[Service.POSTGRES]),
                },
                pids[Service.VALKEY],
            )
