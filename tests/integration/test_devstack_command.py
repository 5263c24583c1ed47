"""`billing dev`, as a shell uses it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from billing.devstack.identity import ProcessId, identify, is_running, terminate
from billing.devstack.record import load
from billing.devstack.services import Services

Dev = Callable[..., subprocess.CompletedProcess[str]]
SETTINGS = ["BILLING_KAFKA_BOOTSTRAP", "BILLING_REDIS_URL", "BILLING_POSTGRES_DSN"]
GATEWAY = ["BILLING_STRIPE_API_BASE", "BILLING_STRIPE_API_KEY"]
BILLING = [sys.executable, "-c", "from billing.cli import main; main()"]


def _clean_environ(**changes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")} | changes


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Runs `billing dev …` with a state folder of its own; its stack is removed at the end."""
    own = _clean_environ(BILLING_STATE_DIR=str(tmp_path))

    def run(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BILLING, "dev", *arguments],
            env={**own, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    yield run
    assert run("down", "--remove-data").returncode == 0


def _exported(answer: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert answer.returncode == 0, answer.stderr
    lines = [shlex.split(line) for line in answer.stdout.splitlines()]
    assert [line[0] for line in lines] == ["export"] * len(lines)
    return dict(line[1].split("=", 1) for line in lines)


def _pids(tmp_path: Path) -> dict[str, ProcessId]:
    services = load(tmp_path / "dev" / "stack.json").services
    return {service.value: kept.process for service, kept in services.items() if kept.process is not None}


def test_up_status_down(dev: Dev, tmp_path: Path) -> None:
    assert dev("status").returncode == 1
    first = _exported(dev("up"))
    assert list(first) == [*SETTINGS, "BILLING_POSTGRES_OWNER_DSN", *GATEWAY, "BILLING_STATE_DIR"]
    assert first["BILLING_POSTGRES_DSN"] != first["BILLING_POSTGRES_OWNER_DSN"]  # consumers may not change the books
    assert first["BILLING_STATE_DIR"] == str(tmp_path)

    status = dev("status", "--json")
    assert status.returncode == 0
    assert {each["name"]: each["state"] for each in json.loads(status.stdout)} == dict.fromkeys(
        ("kafka", "valkey", "postgres", "sandbox"), "running"
    )
    assert "billing:" not in status.stdout  # no password
    assert first["BILLING_STRIPE_API_KEY"] not in status.stdout

    before = _pids(tmp_path)
    assert _exported(dev("up", environ=first)) == first  # in the same shell: our own addresses are not "given"
    assert _pids(tmp_path) == before

    refused = dev("up", environ={"BILLING_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert _pids(tmp_path) == before  # an address that is of no use replaces nothing: `down` still finds it

    os.kill(before["valkey"].pid, signal.SIGKILL)  # half dead: the others are taken over, this one starts again
    assert _exported(dev("up")) == first
    after = _pids(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"valkey"}

    assert dev("down").returncode == 0
    assert not any(is_running(process) for process in after.values())
    assert dev("status").returncode == 1
    assert dev("down").stderr.strip() == "nothing was running"


def test_up_with_given_services_starts_nothing(dev: Dev, services: Services, tmp_path: Path) -> None:
    given = {**services.environ, "BILLING_NAMESPACE": "devstack-given"}
    database = services.postgres_dsn
    answer = dev("up", "--json", environ=given)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["how"] == dict.fromkeys(("kafka", "valkey", "postgres"), "given")
    assert json.loads(answer.stdout)["environment"]["BILLING_POSTGRES_OWNER_DSN"] == database
    assert _pids(tmp_path) == {}


def test_a_malformed_address_is_one_line_and_exit_code_2(dev: Dev) -> None:
    answer = dev("up", environ={"BILLING_KAFKA_BOOTSTRAP": "nonsense"})
    assert (answer.returncode, answer.stdout) == (2, "")
    assert len(answer.stderr.splitlines()) == 1
    assert "BILLING_KAFKA_BOOTSTRAP" in answer.stderr


def test_exec_gives_the_command_its_services_and_its_exit_code(dev: Dev, services: Services) -> None:
    show = "import os, sys; print(os.environ['BILLING_REDIS_URL']); sys.exit(7)"
    answer = dev("exec", "--", sys.executable, "-c", show, environ=services.environ)
    assert (answer.returncode, answer.stdout.strip()) == (7, services.redis_url)
    assert dev("exec", "no-such-command").returncode == 2


def test_exec_that_is_ended_ends_its_command(services: Services, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = [*BILLING, "dev", "exec", "--", sys.executable, "-c", code]
    with subprocess.Popen(command, env=_clean_environ(**services.environ), stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = identify(int(pid_file.read_text()))
        assert child is not None
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 128 + signal.SIGTERM
    assert terminate(child, None, 5.0)
