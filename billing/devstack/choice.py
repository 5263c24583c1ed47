"""Which way each service is had: at a given address, in a container, or as a local process, in this order."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from billing.settings import SettingError, Settings

ENGINE_LIMIT_S = 2
DEFAULT_ENGINE = "unix:///var/run/docker.sock"


class Service(StrEnum):
    """The three services, each with the setting that gives its address."""

    KAFKA = "kafka"
    VALKEY = "valkey"
    POSTGRES = "postgres"

    @property
    def setting(self) -> str:
        return _SETTINGS[self]

    @property
    def label(self) -> str:
        return _LABELS[self]


_SETTINGS = {
    Service.KAFKA: "BILLING_KAFKA_BOOTSTRAP",
    Service.VALKEY: "BILLING_REDIS_URL",
    Service.POSTGRES: "BILLING_POSTGRES_DSN",
}
OWNER_SETTING = "BILLING_POSTGRES_OWNER_DSN"
"""As whom PostgreSQL is prepared; consumers are given another user."""

_LABELS = {Service.KAFKA: "Kafka", Service.VALKEY: "Redis/Valkey", Service.POSTGRES: "PostgreSQL"}


class How(StrEnum):
    GIVEN = "given"
    CONTAINER = "container"
    PROCESS = "process"


@dataclass(frozen=True)
class Choice:
    """How one service is had, and why in words; `address` only when it is given."""

    service: Service
    how: How
    why: str
    address: str = ""

    def __str__(self) -> str:
        return f"{self.service.label}: {self.why}"


def choose(environ: Mapping[str, str], probe_engine: Callable[[], str]) -> dict[Service, Choice]:
    """Choose for each service. `probe_engine` answers "" when a container engine can be used, else why not; it is asked
    at most once and only when an address is missing. Raises SettingError for a malformed address.

    BILLING_DEVSTACK=process skips the engine, for machines whose engine cannot get images.
    """
    _check(environ)
    given = {service: address for service in Service if (address := environ.get(service.setting, "").strip())}
    if owner := environ.get(OWNER_SETTING, "").strip():
        given[Service.POSTGRES] = owner
    choices = {
        service: Choice(service, How.GIVEN, f"given by {service.setting}", address)
        for service, address in given.items()
    }
    missing = [service for service in Service if service not in given]
    if missing:
        how, why = _own(environ, probe_engine)
        choices |= {service: Choice(service, how, why) for service in missing}
    return choices


def _own(environ: Mapping[str, str], probe_engine: Callable[[], str]) -> tuple[How, str]:
    wish = environ.get("BILLING_DEVSTACK", "").strip()
    if wish not in ("", "process"):
        raise SettingError(f"BILLING_DEVSTACK must be process or not set, got {wish!r}")
    if wish == "process":
        return How.PROCESS, "a local process (BILLING_DEVSTACK=process)"
    reason = probe_engine()
    if reason:
        return How.PROCESS, f"a local process ({reason})"
    return How.CONTAINER, "a container"


def _check(environ: Mapping[str, str]) -> None:
    """Refuse a malformed address by name, with the rules that the consumers use."""
    placeholders = dict(zip(_SETTINGS.values(), ("host:1", "redis://host", "postgresql://host"), strict=True))
    Settings.from_env({**placeholders, **{name: value for name, value in environ.items() if value.strip()}})


def container_engine() -> str:
    """Ask the container engine for a sign of life, for at most a few seconds: "" or why it cannot be used."""
    import docker  # noqa: PLC0415 - slow to import, and only wanted when an address is missing
    from testcontainers.core.docker_client import get_docker_host  # noqa: PLC0415

    where = get_docker_host() or DEFAULT_ENGINE
    try:
        if not _listens(where):  # asked first, for docker-py leaks a socket when nobody does
            return "no container engine answers"
        client = docker.DockerClient(base_url=where, timeout=ENGINE_LIMIT_S)
        try:
            return "" if client.ping() else "no container engine answers"
        finally:
            client.close()
    except Exception:  # whatever it is, no engine can be used
        return "no container engine answers"


def _listens(where: str) -> bool:
    """Whether something on this machine listens at the engine's address; an engine elsewhere is of no use to us."""
    parts = urlsplit(where)
    address: str | tuple[str, int]
    if parts.scheme == "unix":
        family, address = socket.AF_UNIX, parts.path
    elif parts.hostname in ("localhost", "127.0.0.1"):
        family, address = socket.AF_INET, (parts.hostname, parts.port or 2375)
    else:
        return False
    with socket.socket(family) as probe:
        probe.settimeout(ENGINE_LIMIT_S)
        return probe.connect_ex(address) == 0
