"""The services as containers, where an engine answers (testcontainers).

In the foreground testcontainers' reaper removes them even when we are killed. In the background (`billing dev up`)
they stay, with their data, until `down` stops them. Ports are fixed on the loopback address, so that a container that
is started again keeps its address.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing.devstack import versions
from billing.devstack.answering import answers
from billing.devstack.choice import DEFAULT_ENGINE, Service
from billing.devstack.errors import DevStackError
from billing.devstack.identity import POLL_S
from billing.devstack.kafka import PROPERTIES as KAFKA_PROPERTIES
from billing.devstack.ports import LOOPBACK, free_port
from billing.devstack.postgres import DATABASE, USER
from billing.devstack.valkey import DEFAULTS as VALKEY_DIRECTIVES

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

START_LIMIT_S = 120.0


@dataclass(frozen=True)
class Started:
    """A running container: the engine's id for it, and the address that it serves."""

    service: Service
    id: str
    address: str


def start(service: Service, *, stays: bool) -> Started:
    """Start a container and wait until it answers. Raises DevStackError; nothing is left running then."""
    container, address = _described(service)
    try:
        _reaper(not stays)
        container.start()  # pulls the image first if need be
        await_answer(service, address)
        return Started(service, container.get_container_id(), address)
    except BaseException as failure:
        _discard(container)
        if not isinstance(failure, Exception):  # an interrupt
            raise
        raise DevStackError(f"{service.label}: no container: {(str(failure).splitlines() or ['?'])[0]}") from failure


def await_answer(service: Service, address: str) -> None:
    """Wait until the service answers there. Raises DevStackError after `START_LIMIT_S`."""
    deadline = time.monotonic() + START_LIMIT_S
    while not answers(service, address):
        if time.monotonic() > deadline:
            raise DevStackError(f"{service.label}: did not answer within {START_LIMIT_S:.0f} s")
        time.sleep(POLL_S)


def revive(container_id: str) -> bool:
    """Start a stopped container of an earlier `up` again; False when the engine or the container is gone."""
    with suppress(Exception):
        _engine_container(container_id).start()
        return True
    return False


def stop(container_id: str, *, remove: bool) -> None:
    """Stop a container; `remove` its data with it. One that is gone already is fine."""
    with suppress(Exception):
        container = _engine_container(container_id)
        container.stop(timeout=20)
        if remove:
            container.remove(v=True, force=True)


def is_running(container_id: str) -> bool:
    with suppress(Exception):
        return str(_engine_container(container_id).status) == "running"
    return False


def _described(service: Service) -> tuple[DockerContainer, str]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where an engine answers

    port = free_port()
    if service is Service.KAFKA:
        container = DockerContainer(versions.KAFKA_IMAGE).with_envs(**_kafka_environ(port))
        return _bound(container, port, port), f"{LOOPBACK}:{port}"
    if service is Service.VALKEY:
        directives = [word for name, value in VALKEY_DIRECTIVES.items() for word in (f"--{name}", value.strip('"'))]
        container = DockerContainer(versions.VALKEY_IMAGE).with_command(["valkey-server", *directives])
        return _bound(container, 6379, port), f"redis://{LOOPBACK}:{port}/0"
    password = secrets.token_hex(16)
    container = DockerContainer(versions.POSTGRES_IMAGE).with_envs(
        POSTGRES_USER=USER, POSTGRES_PASSWORD=password, POSTGRES_DB=DATABASE, POSTGRES_INITDB_ARGS="--no-locale -E UTF8"
    )
    container = container.with_command(["postgres", "-c", "max_connections=200", "-c", "timezone=UTC"])
    return _bound(container, 5432, port), f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}"


def _kafka_environ(port: int) -> dict[str, str]:
    """The same port inside and outside: the node reaches itself at the address that it tells its clients."""
    own = {
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.quorum.voters": "1@127.0.0.1:9093",
    }
    properties = {**KAFKA_PROPERTIES, **own}
    environ = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in properties.items()}
    return {**environ, "KAFKA_HEAP_OPTS": "-Xmx512m"}


def _bound(container: DockerContainer, inside: int, outside: int) -> DockerContainer:
    container.ports[f"{inside}/tcp"] = (LOOPBACK, outside)  # type: ignore[assignment]  # the engine takes an address too
    return container


def _reaper(wanted: bool) -> None:
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415

    testcontainers_config.ryuk_disabled = not wanted


def _engine_container(container_id: str):  # type: ignore[no-untyped-def]  # docker-py has no types
    import docker  # noqa: PLC0415
    from testcontainers.core.docker_client import get_docker_host  # noqa: PLC0415

    client = docker.DockerClient(base_url=get_docker_host() or DEFAULT_ENGINE, timeout=60)
    return client.containers.get(container_id)


def _discard(container: DockerContainer) -> None:
    with suppress(Exception):
        container.stop(force=True, delete_volume=True)
