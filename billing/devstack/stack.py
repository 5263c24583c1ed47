"""The three services together, as local processes in one folder."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from billing.devstack import record
from billing.devstack.choice import How, Service
from billing.devstack.identity import POLL_S, terminate
from billing.devstack.kafka import KafkaServer
from billing.devstack.postgres import PostgresServer
from billing.devstack.record import ServiceRecord, StackRecord
from billing.devstack.server import Say, Server, quietly
from billing.devstack.valkey import ValkeyServer

LEFTOVER_GRACE_S = 10.0
KINDS: dict[Service, type[Server]] = {
    Service.KAFKA: KafkaServer,
    Service.VALKEY: ValkeyServer,
    Service.POSTGRES: PostgresServer,
}


class LocalStack:
    """Kafka, Valkey and PostgreSQL (or some of them) with private data under `directory` and free ports on loopback.

    In `with` or `async with` it runs from entry to exit, whatever ends the block; should this process be killed, the
    system ends the servers (on Linux) and the next run on this folder ends what is left. One run at a time per folder:
    see `runs.private_folder` for folders of one's own. Not `durable`: the data is removed at the end.
    """

    def __init__(
        self,
        directory: Path,
        *,
        services: Iterable[Service] = tuple(Service),
        durable: bool = False,
        say: Say = quietly,
    ) -> None:
        self.directory = directory
        self.durable = durable
        self.servers: dict[Service, Server] = {
            service: make_server(service, directory, durable=durable, say=say) for service in services
        }
        self._record_path = directory / "stack.json"
        self._recorded: list[object] = []

    @property
    def addresses(self) -> dict[Service, str]:
        return {service: server.url for service, server in self.servers.items()}

    def __getitem__(self, service: Service) -> Server:
        return self.servers[service]

    def start(self) -> None:
        drive(self.starting())

    def starting(self) -> Iterator[None]:
        """Bring all up together, yielding while waiting; on failure or interrupt nothing is left running."""
        self.directory.mkdir(parents=True, exist_ok=True)
        stop_recorded(record.load(self._record_path))
        try:
            for _ in together(server.starting() for server in self.servers.values()):
                self._write_record()  # at once, so that it can be cleared away should we be killed
                yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all; remove the data unless durable."""
        if self.durable:
            stop_all(self.servers.values())
            self._record_path.unlink(missing_ok=True)
            return
        for server in self.servers.values():
            server.discard()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await drive_async(self.starting())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()  # blocks the loop for a moment: a cancelled clean-up would leave servers behind

    def _write_record(self) -> None:
        processes: list[object] = [server.id for server in self.servers.values()]
        if processes != self._recorded:
            self._recorded = processes
            StackRecord({service: recorded(server) for service, server in self.servers.items()}).save(self._record_path)


def make_server(
    service: Service,
    directory: Path,
    *,
    durable: bool,
    detached: bool = False,
    ports: tuple[int, ...] = (),
    say: Say = quietly,
) -> Server:
    """The server of one service in its place under the stack's folder."""
    server = KINDS[service](directory / service.value, durable=durable, detached=detached, ports=ports)
    server.say = say
    return server


def recorded(server: Server) -> ServiceRecord:
    return ServiceRecord(
        how=How.PROCESS, address=server.url if server.is_running else "", ports=server.ports, process=server.id
    )


def together(starts: Iterable[Iterator[None]]) -> Iterator[None]:
    """Go on with several waiting starts in turn until all are through. The first to fail ends the others."""
    waiting = list(starts)
    try:
        while waiting:
            for start in list(waiting):
                try:
                    next(start)
                except StopIteration:
                    waiting.remove(start)
            yield  # also after the last has started
    finally:
        for start in waiting:
            if isinstance(start, Generator):
                start.close()


def drive(steps: Iterator[object]) -> None:
    for _ in steps:
        time.sleep(POLL_S)


async def drive_async(steps: Generator[None] | Iterator[None]) -> None:
    try:
        for _ in steps:
            await asyncio.sleep(POLL_S)
    except BaseException:  # a cancellation strikes between two steps: let the steps clean up
        if isinstance(steps, Generator):
            steps.close()
        raise


def stop_all(servers: Iterable[Server]) -> None:
    """Ask all at once, then wait for each."""
    asked = list(servers)
    for server in asked:
        server.begin_stop()
    for server in asked:
        server.stop()


def stop_recorded(found: StackRecord) -> None:
    """End the processes of a run that did not end them itself: killed, or on a system without death signals."""
    for process in found.consumers.values():
        terminate(process, signal.SIGTERM, LEFTOVER_GRACE_S)
    for service, kept in found.services.items():
        if kept.process is not None:
            terminate(kept.process, KINDS[service].discard_signal, LEFTOVER_GRACE_S)
