"""The services for one run: given, in containers, or as local processes; what was started is stopped at the end."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from billing.devstack import containers
from billing.devstack.choice import OWNER_SETTING, Choice, How, Service, choose, container_engine
from billing.devstack.errors import DevStackError
from billing.devstack.runs import private_folder
from billing.devstack.server import Say
from billing.devstack.stack import LocalStack

RUNTIME_USER = "billing_runtime"


@dataclass(frozen=True)
class Services:
    """Addresses of running services, and how each is had. `postgres_dsn` is the ledger's owner's, `runtime_dsn` that of
    the consumers, whose role `billing migrate` makes; they are the same where only one was given."""

    kafka_bootstrap: str
    redis_url: str
    postgres_dsn: str = field(repr=False)  # carries a password
    how: Mapping[Service, How] = field(default_factory=dict)
    given_runtime_dsn: str = field(default="", repr=False)

    @property
    def runtime_dsn(self) -> str:
        if self.how.get(Service.POSTGRES, How.GIVEN) is How.GIVEN:
            return self.given_runtime_dsn or self.postgres_dsn
        return runtime_dsn(self.postgres_dsn)

    @property
    def environ(self) -> dict[str, str]:
        """The settings that point a process at these services."""
        return {
            Service.KAFKA.setting: self.kafka_bootstrap,
            Service.VALKEY.setting: self.redis_url,
            Service.POSTGRES.setting: self.runtime_dsn,
            OWNER_SETTING: self.postgres_dsn,
        }

    @staticmethod
    def of(addresses: Mapping[Service, str], how: Mapping[Service, How], environ: Mapping[str, str]) -> Services:
        given = environ.get(Service.POSTGRES.setting, "").strip()
        return Services(addresses[Service.KAFKA], addresses[Service.VALKEY], addresses[Service.POSTGRES], how, given)


def runtime_dsn(owner_dsn: str) -> str:
    """The runtime role's address on a server of our own; its password follows from the owner's, so that nobody has to
    keep it."""
    parts = urlsplit(owner_dsn)
    password = hashlib.sha256(f"{parts.password}:{RUNTIME_USER}".encode()).hexdigest()[:32]
    return with_user(owner_dsn, RUNTIME_USER, password)


def with_user(dsn: str, user: str, password: str) -> str:
    """The same address, for another user. Name and password need no quoting."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def open_services(
    *,
    purpose: str,
    environ: Mapping[str, str] = os.environ,
    state: Path | None = None,
    say: Say = say_on_stderr,
    probe_engine: Callable[[], str] = container_engine,
) -> Iterator[Services]:
    """Private, empty services for one run (or the given ones), in a `with` block; says how each is had.

    `purpose` is a word that names the run's folder. Raises SettingError for a malformed address, DevStackError when a
    service cannot be had. Blocks while starting; safe to interrupt.
    """
    choices = choose(environ, probe_engine)
    with ExitStack() as cleanup:
        addresses = {service: choice.address for service, choice in choices.items() if choice.how is How.GIVEN}
        how = {service: choice.how for service, choice in choices.items()}
        for choice in choices.values():
            if choice.how is How.CONTAINER and not (started := _in_container(choice, say, cleanup)):
                how[choice.service] = How.PROCESS
            elif choice.how is How.CONTAINER:
                addresses[choice.service] = started
            else:
                say(str(choice))
        local = [service for service, way in how.items() if way is How.PROCESS]
        if local:
            folder = cleanup.enter_context(private_folder(purpose, state))
            addresses |= cleanup.enter_context(LocalStack(folder, services=local, say=say)).addresses
        yield Services.of(addresses, how, environ)


def _in_container(choice: Choice, say: Say, cleanup: ExitStack) -> str:
    """The address of a new container; "" when the engine could not provide one, which is said."""
    say(f"{choice.service.label}: starting a container")
    try:
        started = containers.start(choice.service, stays=False)
    except DevStackError as failure:
        say(f"{failure}; using a local process instead")
        return ""
    cleanup.callback(containers.stop, started.id, remove=True)
    return started.address
