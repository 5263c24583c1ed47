"""The stack that stays: `billing dev up`, `down` and `status`.

Everything is recorded in the state folder, so that any later call finds it. `up` keeps what runs and answers, and
starts what does not again, on its old data and, if it can, its old ports.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from billing.devstack import consumers, containers, record
from billing.devstack.answering import answers
from billing.devstack.choice import OWNER_SETTING, Choice, How, Service, choose, container_engine
from billing.devstack.errors import DevStackError
from billing.devstack.folders import state_dir
from billing.devstack.identity import POLL_S, ProcessId, is_running
from billing.devstack.locking import locked
from billing.devstack.record import ServiceRecord, StackRecord
from billing.devstack.server import Say, Server
from billing.devstack.services import Services, runtime_dsn, say_on_stderr
from billing.devstack.stack import make_server, recorded, stop_all, together

UP_LIMIT_S = 300.0
TAKEOVER_PATIENCE_S = 5.0


@dataclass(frozen=True)
class ServiceStatus:
    """One service of the background stack, or one of its consumers. `pid` of a local process."""

    name: str
    how: How
    state: str  # running, not answering, stopped
    address: str
    pid: int | None


class BackgroundStack:
    """The one background stack of a state folder; calls from several processes take turns."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        say: Say = say_on_stderr,
        probe_engine: Callable[[], str] = container_engine,
    ) -> None:
        self.directory = state_dir(environ) / "dev"
        self._environ = environ
        self._say = say
        self._probe_engine = probe_engine
        self._path = self.directory / "stack.json"

    def up(self) -> Services:
        """Have every service running and answering. What a given address replaces goes on until `end_replaced`, for the
        address may turn out to be of no use. Raises DevStackError or SettingError."""
        with self._alone():
            found = record.load(self._path)
            choices = choose(self._without_own_addresses(found), self._probe_engine)
            self._forget_lost_data(found)
            self._end_unwanted(found, choices)
            for choice in choices.values():
                if choice.how is How.CONTAINER:
                    choices[choice.service] = self._in_container(choice, found)
            self._as_processes([each.service for each in choices.values() if each.how is How.PROCESS], found)
            addresses = {
                service: choice.address or found.services[service].address for service, choice in choices.items()
            }
            return Services.of(addresses, {service: choice.how for service, choice in choices.items()}, self._environ)

    def end_replaced(self, services: Services) -> None:
        """Stop what an earlier `up` started and a given address has replaced."""
        with self._alone():
            found = record.load(self._path)
            for service, how in services.how.items():
                if how is How.GIVEN and service in found.services:
                    self._end(service, found, f"given by {service.setting}")

    def down(self, *, remove_data: bool = False) -> bool:
        """Stop everything, consumers first; False when nothing ran. Data stays unless asked otherwise."""
        with self._alone():
            found = record.load(self._path)
            ran = any(status.state != "stopped" for status in self._statuses(found))
            consumers.stop(found)
            stop_all(self._local_servers(found))
            for service, kept in found.services.items():
                if kept.container:
                    containers.stop(kept.container, remove=remove_data)
                if kept.process is not None:
                    found.services[service] = ServiceRecord(how=kept.how, address=kept.address, ports=kept.ports)
            found.save(self._path)
            if remove_data:
                self._remove_data(found)
            return ran

    def start_consumers(self, services: Services) -> Path:
        """Start each consumer that does not run, in the background; returns the folder of their logs."""
        with self._alone():
            found = record.load(self._path)
            try:
                return consumers.start(found, self.directory, {**self._environ, **services.environ}, self._say)
            finally:
                found.save(self._path)

    def status(self) -> list[ServiceStatus]:
        """What was started here and how it is now; nothing is changed."""
        return self._statuses(record.load(self._path))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as refused:
            raise DevStackError(f"{self.directory} cannot be created ({refused.strerror})") from refused
        with locked(self.directory / "lock", what="the background stack", limit_s=UP_LIMIT_S):
            yield

    def _without_own_addresses(self, found: StackRecord) -> dict[str, str]:
        """After `eval "$(billing dev up)"` our own addresses are in the environment: those are not given by anyone."""
        own = {(service.setting, kept.address) for service, kept in found.services.items()}
        if database := found.services.get(Service.POSTGRES):
            own |= {(OWNER_SETTING, database.address), (Service.POSTGRES.setting, runtime_dsn(database.address))}
        return {name: value for name, value in self._environ.items() if (name, value) not in own}

    def _in_container(self, choice: Choice, found: StackRecord) -> Choice:
        """The choice itself once its container runs; a local process when the engine could not provide it."""
        service = choice.service
        kept = found.services.get(service)
        if kept and kept.container and (containers.is_running(kept.container) or containers.revive(kept.container)):
            containers.await_answer(service, kept.address)
            self._say(f"{service.label}: the container of an earlier `up`")
            return choice
        self._say(f"{service.label}: starting a container")
        try:
            started = containers.start(service, stays=True)
        except DevStackError as failure:
            self._say(f"{failure}; using a local process instead")
            return Choice(service, How.PROCESS, str(failure))
        found.services[service] = ServiceRecord(how=How.CONTAINER, address=started.address, container=started.id)
        found.save(self._path)
        return choice

    def _as_processes(self, wanted: list[Service], found: StackRecord) -> None:
        servers = {service: self._server(service, found) for service in wanted}
        running = {service: server for service, server in servers.items() if _answers_soon(server)}
        for service in running:
            self._say(f"{service.label}: the local process of an earlier `up`")
        starting = {service: server for service, server in servers.items() if service not in running}
        for service, server in starting.items():
            if server.is_running:
                self._say(f"{service.label}: process {server.id and server.id.pid} does not answer; starting it again")
                server.stop()
            else:
                self._say(f"{service.label}: starting a local process")
        try:
            for _ in together(server.starting() for server in starting.values()):
                self._note(servers, found)
                time.sleep(POLL_S)
        except BaseException:
            stop_all(starting.values())
            self._note(servers, found)
            raise

    def _note(self, servers: Mapping[Service, Server], found: StackRecord) -> None:
        """Record each process as soon as it runs, so that a later call finds it even if this one is killed."""
        now = {service: recorded(server) for service, server in servers.items() if server.ports}
        if any(found.services.get(service) != kept for service, kept in now.items()):
            found.services |= now
            found.save(self._path)

    def _server(self, service: Service, found: StackRecord) -> Server:
        """The server in its place, taken over if its process still runs."""
        kept = found.services.get(service, ServiceRecord(how=How.PROCESS, address=""))
        server = make_server(service, self.directory, durable=True, detached=True, ports=kept.ports, say=self._say)
        if kept.process is not None and kept.runs:
            server.adopt(kept.process)
        return server

    def _local_servers(self, found: StackRecord) -> list[Server]:
        return [self._server(service, found) for service, kept in found.services.items() if kept.how is How.PROCESS]

    def _end_unwanted(self, found: StackRecord, choices: Mapping[Service, Choice]) -> None:
        """Stop what an earlier `up` started another way than it is to be started now."""
        for service, kept in list(found.services.items()):
            if choices[service].how not in (kept.how, How.GIVEN):
                self._end(service, found, choices[service].why)

    def _end(self, service: Service, found: StackRecord, why: str) -> None:
        kept = found.services[service]
        self._say(f"{service.label}: was a {kept.how}, now {why}; its data is set aside")
        stop_all([self._server(service, found)] if kept.process else [])
        if kept.container:
            containers.stop(kept.container, remove=False)
        del found.services[service]
        found.save(self._path)

    def _forget_lost_data(self, found: StackRecord) -> None:
        """Under root PostgreSQL's data may be in a temporary folder that somebody emptied: begin anew."""
        kept = found.services.get(Service.POSTGRES)
        if kept is None or kept.how is not How.PROCESS or kept.runs:
            return
        server = self._server(Service.POSTGRES, found)
        if server.log.exists() and not server.has_data:
            self._say("PostgreSQL: its data is gone; starting all services of this stack empty")
            stop_all(self._local_servers(found))
            self._remove_data(found)

    def _remove_data(self, found: StackRecord) -> None:
        for server in self._local_servers(found):
            server.discard()
        for service in [service for service, kept in found.services.items() if kept.how is How.PROCESS]:
            shutil.rmtree(self.directory / service.value, ignore_errors=True)
        found.services.clear()
        found.save(self._path)

    def _statuses(self, found: StackRecord) -> list[ServiceStatus]:
        running = [_status(service, kept) for service, kept in sorted(found.services.items())]
        return running + [_consumer_status(kind, process) for kind, process in found.consumers.items()]


def _status(service: Service, kept: ServiceRecord) -> ServiceStatus:
    running = kept.runs or bool(kept.container and containers.is_running(kept.container))
    state = "stopped"
    if running:
        state = "running" if answers(service, kept.address) else "not answering"
    pid = kept.process.pid if kept.process and kept.runs else None
    return ServiceStatus(service.value, kept.how, state, kept.address, pid)


def _consumer_status(kind: str, process: ProcessId) -> ServiceStatus:
    running = is_running(process)
    return ServiceStatus(kind, How.PROCESS, "running" if running else "stopped", "", process.pid if running else None)


def _answers_soon(server: Server) -> bool:
    """A server that is taken over may just be starting, or busy for a moment."""
    deadline = time.monotonic() + TAKEOVER_PATIENCE_S
    while server.is_running:
        if server.answers():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return False
