"""Real services for tests: one shared stack per session, a namespace per test, private servers to kill.

The shared services are those given by BILLING_KAFKA_BOOTSTRAP, BILLING_REDIS_URL and BILLING_POSTGRES_DSN (as `make
test` gives them to each of its workers), else the session starts its own.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from billing.devstack.isolation import isolated
from billing.devstack.kafka import KafkaServer
from billing.devstack.postgres import PostgresServer
from billing.devstack.runs import private_folder
from billing.devstack.server import Server
from billing.devstack.services import Services, open_services
from billing.devstack.valkey import ValkeyServer
from billing.settings import Settings

S = TypeVar("S", bound=Server)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started by `make test &` in a script: what the tests start would be deaf to the Ctrl-C that they test
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A crashed broker's registration blocks its return until this long after its last heartbeat.
QUICK_RETURN: Mapping[str, str] = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Addresses of the session's shared services: .kafka_bootstrap, .redis_url, .postgres_dsn."""
    with open_services(purpose="tests") as found:
        yield found


@pytest.fixture
async def settings(services: Services) -> AsyncIterator[Settings]:
    """A namespace of this test's own with an empty database, removed afterwards."""
    async with isolated(services) as fresh:
        yield fresh


@pytest.fixture
def private_valkey() -> Iterator[Callable[..., ValkeyServer]]:
    """A factory of private Valkey servers to kill, pause and configure: `private_valkey(config={…})`."""
    with _factory(ValkeyServer) as make:
        yield make


@pytest.fixture(scope="module")
def module_valkey() -> Iterator[Callable[..., ValkeyServer]]:
    """As `private_valkey`, for servers that live as long as the module's tests."""
    with _factory(ValkeyServer) as make:
        yield make


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """A factory of private PostgreSQL servers that this test may kill, pause and configure."""
    with _factory(PostgresServer) as make:
        yield make


@pytest.fixture(scope="module")
def module_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """As `private_postgres`, for servers that live as long as the module's tests."""
    with _factory(PostgresServer) as make:
        yield make


@pytest.fixture
def private_kafka() -> Iterator[Callable[..., KafkaServer]]:
    """A factory of private Kafka nodes that this test may kill, pause and configure."""
    with _factory(KafkaServer, QUICK_RETURN) as make:
        yield make


@pytest.fixture(scope="module")
def module_kafka() -> Iterator[Callable[..., KafkaServer]]:
    """As `private_kafka`, for nodes that live as long as the module's tests."""
    with _factory(KafkaServer, QUICK_RETURN) as make:
        yield make


@contextmanager
def _factory(kind: type[S], preset: Mapping[str, str] | None = None) -> Iterator[Callable[..., S]]:
    """Each call starts a server in a folder of its own; all are ended, and their data removed, at the end."""
    with ExitStack() as cleanup:
        folder: Path = cleanup.enter_context(private_folder("private"))
        made: list[S] = []

        def make(*, config: Mapping[str, str] | None = None, durable: bool = False) -> S:
            where = folder / f"{kind.name.lower()}-{len(made)}"
            server = kind(where, config={**(preset or {}), **(config or {})}, durable=durable)
            cleanup.callback(server.discard)
            made.append(server)
            server.start()
            return server

        yield make
