"""`billing consume admission` as a process: beside the pipeline that fills its stores, and with everything away."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from billing.lab.pipeline import running_pipeline
from billing.lab.prepare import open_accounts, prepare
from billing.lab.publisher import Publisher
from billing.lab.supervise import Consumer, environment
from billing.lab.waiting import until
from billing.lab.wire import envelope, message
from billing.ledger.accounts import close
from billing.ledger.database import open_pool
from billing.ledger.terms import Changed, NewAccount
from billing.settings import Settings

ADDRESS = {"BILLING_ADMISSION_ADDRESS": "127.0.0.1:0"}
TO_GERMANY = {"kind": "call", "direction": "outbound", "to": "+4930123456"}  # us-standard: 0.0210 a minute, 60/60
NOWHERE = Settings("127.0.0.1:1", "redis://127.0.0.1:1/0", "postgresql://nobody@127.0.0.1:1/none")


class Asking:
    """One process, and requests to it."""

    def __init__(self, process: Consumer, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http
        self.port = 0

    async def listening(self) -> None:
        """Wait until it says where it listens."""
        await until(lambda: self._find_port() > 0, "the address")
        self.port = self._find_port()

    async def authorize(self, account: str, **parameters: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/v1/accounts/{account}/authorize"
        async with self.http.get(url, params=parameters or TO_GERMANY) as response:
            return response.status, await response.json()

    def _find_port(self) -> int:
        for line in self.process.last_lines(50):
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("event") == "admission.listening":
                return int(said["port"])
        return 0


@asynccontextmanager
async def _asking(settings: Settings, folder: Path, **extra: str) -> AsyncIterator[Asking]:
    process = Consumer("admission", "admission", settings, folder, ADDRESS | extra)
    process.start()
    try:
        async with aiohttp.ClientSession() as http:
            asking = Asking(process, http)
            await asking.listening()
            yield asking
            assert await process.stop(), process.last_lines()
    finally:
        await process.kill()


async def test_it_follows_the_pipeline_and_ends_when_asked(settings: Settings, tmp_path: Path) -> None:
    await prepare(settings)
    async with running_pipeline(settings, tmp_path / "logs", kinds=("relay", "inflight")) as pipeline:
        await open_accounts(settings, [NewAccount("acme", "USD", "us-standard", credit_micros=42_000)])
        async with _asking(settings, tmp_path, BILLING_ADMISSION_BEHIND_MS="2000") as asking:
            await asking.process.ready()
            status, answer = await asking.authorize("acme")
            assert (status, answer["allowed"], answer["reason"]) == (200, True, "ok")
            assert (answer["lag"]["records"], answer["lag"]["age_ms"] < 2_000) == (0, True)
            assert (answer["affordable_seconds"], answer["plan"]) == (120, "us-standard")
            assert (await asking.authorize("nobody"))[0] == 404
            await _start_a_call(settings)  # a minute is held
            await until(lambda: _affordable(asking, 60), "the hold")
            await _close(settings)
            await until(lambda: _reason(asking, "closed"), "the closing")
            async with asking.http.get(f"http://127.0.0.1:{asking.process.port}/metrics") as response:
                metrics = await response.text()
            assert 'billing_admission_answers_total{allowed="true",kind="call",reason="ok"}' in metrics
            await pipeline.supervisor.kill("inflight")
            await _start_a_call(settings, "CA2")
            await until(lambda: _reason(asking, "balance_unknown"), "the answer to be no guess")
            _, answer = await asking.authorize("acme")
            assert (answer["allowed"], answer["balance"]["reason"], answer["lag"]["records"]) == (True, "behind", 1)


async def _affordable(asking: Asking, seconds: int) -> bool:
    return bool((await asking.authorize("acme"))[1]["affordable_seconds"] == seconds)


async def _reason(asking: Asking, reason: str) -> bool:
    return bool((await asking.authorize("acme"))[1]["reason"] == reason)


async def _start_a_call(settings: Settings, call: str = "CA1") -> None:
    data = {"call_id": call, "direction": "outbound", "from": "+12025550100", "to": "+4930123456"}
    attributes = envelope("usage.call.started.v1", call, "acme", int(time.time() * 1000))
    async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
        await publisher.send([message(attributes, data, "structured")])


async def _close(settings: Settings) -> None:
    pool = await open_pool(settings.owner_dsn, max_size=1)
    try:
        assert isinstance(await close(pool, "acme", author="tests"), Changed)
    finally:
        await asyncio.wait_for(pool.close(), timeout=5)


@pytest.mark.parametrize("policy", ["allow", "deny"])
async def test_r11_with_everything_away_it_answers_by_policy_from_the_start(tmp_path: Path, policy: str) -> None:
    async with _asking(NOWHERE, tmp_path, BILLING_ADMISSION_UNKNOWN=policy) as asking:
        began = time.monotonic()
        status, answer = await asking.authorize("acme")
        assert time.monotonic() - began < 2.0
        assert (status, answer["allowed"], answer["reason"]) == (200, policy == "allow", "balance_unknown")
        assert (answer["policy"], answer["balance"]["reason"]) == (policy, "unavailable")
        health = await asking.process.health()
        assert health is not None
        assert health["healthy"] is False


async def _refused(**environ: str) -> str:
    """The one line of a process that does not run, its exit code being 2."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from billing.cli import main; main()", "consume", "admission"),
        env={**os.environ, **environment(NOWHERE), **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert process.returncode == 2
    return next(line for line in err.decode().splitlines() if not line.startswith("{"))


async def test_what_it_cannot_do_is_refused_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await _refused(BILLING_ADMISSION_ADDRESS=address)
    assert line.startswith(f"billing admission: cannot listen on {address}: ")
    line = await _refused(BILLING_ADMISSION_UNKNOWN="perhaps")
    assert line == "billing admission: BILLING_ADMISSION_UNKNOWN must be allow or deny, got 'perhaps'"
