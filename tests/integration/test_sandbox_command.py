"""`billing sandbox` as one runs it: what it prints, what it keeps, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.lab.sandbox.process import SandboxProcess

COMMAND = [sys.executable, "-m", "billing.lab.sandbox"]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    process = SandboxProcess(tmp_path / "state")
    yield process
    process.stop()


def test_it_prints_two_shell_lines_and_ends_on_sigterm(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, "--state", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert re.fullmatch(r"export BILLING_STRIPE_API_BASE=http://127\.0\.0\.1:\d+\n", lines[0])
    assert re.fullmatch(r"export BILLING_STRIPE_API_KEY=sk_test_[0-9a-f]{48}\n", lines[1])


def test_the_key_and_the_port_are_the_same_after_a_restart(tmp_path: Path) -> None:
    first = SandboxProcess(tmp_path)
    first.kill()
    second = SandboxProcess(tmp_path, port=first.port)
    second.stop()
    assert second.settings == first.settings


def test_r12_the_state_is_for_its_owner_only(sandbox: SandboxProcess) -> None:
    assert sandbox.folder.stat().st_mode & 0o077 == 0
    assert (sandbox.folder / "api_key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("occupied", ["state", "port"])
def test_what_is_in_use_is_refused_in_one_line(sandbox: SandboxProcess, tmp_path: Path, occupied: str) -> None:
    state = sandbox.folder if occupied == "state" else tmp_path / "other"
    port = 0 if occupied == "state" else sandbox.port
    ended = subprocess.run(
        [*COMMAND, "--state", str(state), "--port", str(port)], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert ("already running" if occupied == "state" else f"127.0.0.1:{port}") in ended.stderr


def test_it_listens_on_this_machine_only(sandbox: SandboxProcess) -> None:
    listening = Path(f"/proc/{sandbox.pid}/net/tcp")
    port = f"{sandbox.port:04X}"
    addresses = {line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"}
    assert {address for address in addresses if address.endswith(f":{port}")} == {f"0100007F:{port}"}


def test_faults_are_shown_refused_and_dropped(sandbox: SandboxProcess) -> None:
    controls = sandbox.controls
    controls.add_fault("decline", count=2)
    controls.add_fault("delay", seconds=1.5)
    assert controls.faults() == [
        {"fault": "decline", "count": 2, "seconds": 0.0},
        {"fault": "delay", "count": 1, "seconds": 1.5},
    ]
    wrong: tuple[dict[str, object], ...] = ({"fault": "fire"}, {"fault": "delay", "seconds": -1}, {"count": 1}, {})
    for order in wrong:
        request = urllib.request.Request(
            f"{sandbox.settings.api_base}/_sandbox/faults", data=json.dumps(order).encode(), method="POST"
        )
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
    controls.clear_faults()
    assert controls.faults() == []


def test_health_needs_no_key(sandbox: SandboxProcess) -> None:
    with urllib.request.urlopen(f"{sandbox.settings.api_base}/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}


def test_the_state_goes_where_the_stack_s_state_is(tmp_path: Path) -> None:
    environ = os.environ | {"BILLING_STATE_DIR": str(tmp_path)}
    with subprocess.Popen([*COMMAND, "--json"], stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"BILLING_STRIPE_API_BASE", "BILLING_STRIPE_API_KEY"}
        process.terminate()
    assert (tmp_path / "sandbox" / "sandbox.sqlite").is_file()
