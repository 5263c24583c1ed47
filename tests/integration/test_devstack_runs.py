"""Foreground runs: everything ends with them, however they end, and runs do not meet."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from billing.devstack import postgres_files, versions
from billing.devstack import server as server_module
from billing.devstack.choice import Service
from billing.devstack.errors import DevStackError
from billing.devstack.identity import ProcessId, is_running, terminate
from billing.devstack.kafka import KafkaServer
from billing.devstack.ports import LOOPBACK, free_port
from billing.devstack.postgres import PostgresServer
from billing.devstack.processes import spawn
from billing.devstack.record import load
from billing.devstack.runs import clear_dead_runs, private_folder
from billing.devstack.server import Server
from billing.devstack.stack import LocalStack, make_server
from billing.devstack.valkey import ValkeyServer

LIGHT = (Service.VALKEY, Service.POSTGRES)  # Kafka's start is the slow one

RUN = """
import sys, time
from pathlib import Path
from billing.devstack.choice import Service
from billing.devstack.runs import clear_dead_runs, private_folder
from billing.devstack.stack import LocalStack
names = sys.argv[2].split(",")
with private_folder("test", Path(sys.argv[1])) as folder:
    with LocalStack(folder, services=[Service(name) for name in names]):
        print(folder, flush=True)
        time.sleep(120)
"""


@contextmanager
def _run(state: Path, *services: Service) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a stack of its own, and that stack's folder."""
    command = [sys.executable, "-c", RUN, str(state), ",".join(services)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()
            process.wait()
            clear_dead_runs(state / "runs")


def _processes(folder: Path) -> list[ProcessId]:
    found = [service.process for service in load(folder / "stack.json").services.values()]
    assert found
    return [process for process in found if process is not None]


def test_a_killed_run_leaves_no_process_and_the_next_clears_its_data(tmp_path: Path) -> None:
    with _run(tmp_path, *Service) as (run, folder):
        processes = _processes(folder)
        assert len(processes) == 3
        assert all(is_running(process) for process in processes)
        run.kill()
        run.wait()
        assert all(terminate(process, None, 10.0) for process in processes)  # gone by themselves
        assert folder.exists()
        with private_folder("next", tmp_path) as fresh:
            assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == [fresh.name]
        assert list((tmp_path / "runs").iterdir()) == []


def test_an_interrupted_run_stops_everything_and_removes_its_data(tmp_path: Path) -> None:
    with _run(tmp_path, *LIGHT) as (run, folder):
        processes = _processes(folder)
        run.send_signal(signal.SIGINT)
        run.wait(30)
    assert not any(is_running(process) for process in processes)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_leftover_that_outlived_its_run_is_stopped_by_the_next(tmp_path: Path) -> None:
    """As on a system without death signals: the servers run on, nobody holds the folder's lock."""
    folder = tmp_path / "runs" / "dead-1"
    folder.mkdir(parents=True)
    (tmp_path / "runs" / "dead-1.lock").touch()
    stack = LocalStack(folder, services=LIGHT)
    stack.servers = {service: make_server(service, folder, durable=False, detached=True) for service in LIGHT}
    stack.start()
    processes = _processes(folder)
    clusters = [server.home for server in stack.servers.values() if isinstance(server, PostgresServer)]
    with private_folder("next", tmp_path):
        assert not any(is_running(process) for process in processes)
        assert not folder.exists()
        assert not any(cluster.exists() for cluster in clusters)
    for server in stack.servers.values():
        server.stop()  # only reaps: they were children of this process


def test_two_runs_side_by_side_do_not_meet(tmp_path: Path) -> None:
    with _run(tmp_path, *LIGHT) as (_, other), private_folder("test", tmp_path) as folder:
        theirs = _processes(other)
        with LocalStack(folder, services=LIGHT) as stack:
            assert set(stack.addresses.values()).isdisjoint(
                kept.address for kept in load(other / "stack.json").services.values()
            )
        assert all(is_running(process) for process in theirs)


@pytest.mark.parametrize("kind", [ValkeyServer, PostgresServer, pytest.param(KafkaServer, marks=pytest.mark.slow)])
def test_a_port_lost_to_another_program_is_replaced(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is taken between its choice and the bind: the look that would have seen it is made to miss it."""
    with socket.create_server((LOOPBACK, free_port())) as thief:
        taken = int(thief.getsockname()[1])
        monkeypatch.setattr(server_module, "is_free", lambda _port: True)
        server = kind(tmp_path / "server", ports=(taken, free_port()))
        try:
            server.start()
            assert server.port != taken
            assert server.answers()
        finally:
            server.discard()


def test_a_start_that_is_broken_off_leaves_nothing_running(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "stack", services=LIGHT)
    start = stack.starting()
    while not all(server.id for server in stack.servers.values()):
        next(start)
    processes = [server.id for server in stack.servers.values() if server.id]
    start.close()  # type: ignore[attr-defined]  # a generator, which is how Ctrl-C and cancellation reach it
    assert not any(is_running(process) for process in processes)
    assert not (tmp_path / "stack").exists()


async def test_a_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "stack", services=LIGHT)
    entering = asyncio.ensure_future(stack.__aenter__())
    while not all(server.id for server in stack.servers.values()):  # noqa: ASYNC110 - processes set no event
        await asyncio.sleep(0.01)
    processes = [server.id for server in stack.servers.values() if server.id]
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not any(is_running(process) for process in processes)


def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey", config={"no-such-directive": "1"})
    with pytest.raises(DevStackError, match=r"(?s)Valkey ended while starting.*no-such-directive") as refusal:
        server.start()
    assert "\n" not in str(refusal.value)
    assert not server.is_running


def test_a_server_restarted_from_a_thread_outlives_it(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    try:
        thread = threading.Thread(target=server.restart)
        thread.start()
        thread.join()
        assert server.answers()
    finally:
        server.discard()


def test_postgres_runs_in_a_folder_that_others_may_not_enter(tmp_path: Path) -> None:
    """Under root it runs as another user, who reaches its data elsewhere; nothing of it stays behind."""
    tmp_path.chmod(0o700)
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    try:
        assert server.answers()
        assert (os.getuid() == 0) == (tmp_path not in server.home.parents)
    finally:
        home = server.home
        server.discard()
    assert not home.exists()


def test_only_the_owner_may_read_addresses_and_the_password_is_asked_for(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "stack", services=[Service.POSTGRES]) as stack:
        assert (tmp_path / "stack" / "stack.json").stat().st_mode & 0o077 == 0
        assert (tmp_path / "stack" / "postgres" / "password").stat().st_mode & 0o077 == 0
        server = stack[Service.POSTGRES]
        assert isinstance(server, PostgresServer)
        rules = [line.split() for line in (server.data / "pg_hba.conf").read_text().splitlines() if line.strip()]
        assert {rule[-1] for rule in rules if rule[0] in ("local", "host")} == {"scram-sha-256"}


@pytest.mark.skipif(os.getuid() != 0, reason="only under root PostgreSQL runs as another user")
def test_under_root_the_programs_are_copied_to_where_their_user_may_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(postgres_files, "is_enterable", lambda _folder: False)
        monkeypatch.setattr(postgres_files, "shared_temp_dir", lambda: Path(folder))
        user = postgres_files.server_user()
        assert user is not None
        copy = postgres_files.programs(user)
        assert Path(folder) in copy.parents

        def version() -> str:
            log = tmp_path / "version"
            assert spawn([copy / "postgres", "--version"], log=log, cwd=Path("/"), user=user).wait(10) == 0
            return log.read_text()

        assert versions.POSTGRES in version()
        (copy / "initdb").unlink()  # thinned out by a cleaner of temporary files: copied anew
        assert postgres_files.programs(user) == copy
        assert (copy / "initdb").exists()
        assert versions.POSTGRES in version()
