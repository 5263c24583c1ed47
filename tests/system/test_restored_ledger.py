"""S28: PostgreSQL is restored to an earlier state; what it forgot comes back, and nobody is charged meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from command_runner import billing
from reconcile_harness import CREDIT, Deployment, deployed
from usage_builders import ITEM, item, rates

from billing.devstack.isolation import isolated
from billing.devstack.postgres import PostgresServer
from billing.devstack.services import Services
from billing.ledger.booking import adjust
from billing.ledger.database import fetchrow
from billing.ledger.findings import findings
from billing.ledger.history import suspected
from billing.ledger.queries import query
from billing.ledger.tariffs import Loaded, load_tariff
from billing.ledger.verify import verify
from billing.reconcile.rebuild import RebuildRefused, rebuild
from billing.reconcile.resolving import Decision, Resolved, resolve_finding

pytestmark = pytest.mark.slow

ITEM_PRICE = 1_150_000
FIVE = 5_000_000
HALTED = "select count(*) as halted from positions where halted like 'restored: %'"


async def test_s28_a_restored_ledger_is_found_out_halts_and_gets_back_what_it_forgot(
    services: Services, private_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    postgres = private_postgres()
    async with isolated(services, partitions=2) as plain:
        settings = replace(plain, postgres_dsn=postgres.url, postgres_owner_dsn="")
        async with deployed(settings) as running:
            running.start()
            old = await running.open("old")
            await running.publish(old, ITEM, item(item_id="before"))
            await running.until_settled()
            backup = await _backup(running, postgres)
            await _what_will_be_forgotten(running, old)
            balances = [(await running.balance(name)).available_micros for name in (old, "young")]
            assert balances == [CREDIT + FIVE - 700 - 2 * ITEM_PRICE, CREDIT - ITEM_PRICE]

            await _restore(running, postgres, backup)
            running.start("relay", "postflight")

            async def found_out() -> bool:
                return await suspected(running.pool) is not None

            await running.until(found_out)
            row = await fetchrow(
                running.pool, "select count(*) as halted from positions where halted like 'restored: %'"
            )
            assert row is not None
            assert row["halted"] >= settings.partitions
            assert "may have been restored" in (await _frozen_reason(running, old) or "")
            assert isinstance(await rebuild(settings), RebuildRefused)
            await running.stop("relay", "postflight")

            who = ("--by", "ada", "--reason", "restored from the backup", "--json")
            code, out, err = await billing(settings, "ledger", "restored", *who)
            done = json.loads(out)
            assert (code, err, done["tariffs"], done["accounts"], done["findings"]) == (0, "", 1, 1, 2), out
            who = ("--by", "ada", "--reason", "once more", "--json")
            code, out, err = await billing(settings, "ledger", "restored", "--again", *who)
            assert (code, err) == (0, "")
            assert {name: json.loads(out)[name] for name in ("timeline", "accounts", "findings")} == {
                "timeline": done["timeline"],
                "accounts": 0,
                "findings": 0,
            }
            assert "not reconciled" in (await _frozen_reason(running, old) or "")
            await _book_what_was_forgotten(running)
            running.start("relay", "postflight")
            await running.until_ledger_settled()
            await running.rebuild()
            await running.until_settled()
            assert (await running.reconcile()).agreed
            assert [(await running.balance(name)).available_micros for name in (old, "young")] == balances
            assert all(check.passed for check in await verify(running.pool))

            await running.publish(old, ITEM, item(item_id="afterwards"))
            assert isinstance(await load_tariff(running.pool, "later", rates(), "USD", author="test"), Loaded)
            await running.open("newest")
            await running.until_settled()
            assert running.running()
            assert (await running.reconcile()).agreed
            with running_sandbox(tmp_path) as gateway:
                who = ("--by", "ada", "--reason", "the gateway's list", "--json")
                code, out, err = await billing(settings, "recharge", "reconciled", *who, **gateway)
            assert (code, err, json.loads(out)["reconciled"]) == (0, "", True)
            assert await _frozen_reason(running, old) is None


@contextmanager
def running_sandbox(state: Path) -> Iterator[dict[str, str]]:
    """A payment gateway without payments; its address and key as settings."""
    command = [sys.executable, "-m", "billing.lab.sandbox", "--port", "0", "--state", str(state), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = ""
            while not lines.rstrip().endswith("}"):
                lines += process.stdout.readline()
            yield json.loads(lines)
        finally:
            process.terminate()


async def _backup(running: Deployment, postgres: PostgresServer) -> str:
    """A copy of the server's files while it is down."""
    await running.stop()
    await asyncio.to_thread(postgres.stop)
    copy = f"{postgres.data}.backup"
    await asyncio.to_thread(shutil.copytree, postgres.data, copy, symlinks=True)
    _own(postgres, copy)
    await postgres.start_async()
    running.start()
    return copy


async def _what_will_be_forgotten(running: Deployment, old: str) -> None:
    assert isinstance(await load_tariff(running.pool, "gold", rates(), "USD", author="test"), Loaded)
    await running.credit(old, FIVE)
    await adjust(running.pool, old, -700, "a correction", author="test")
    await running.open("young")
    await running.publish(old, ITEM, item(item_id="after"))
    await running.publish("young", ITEM, item(item_id="after"))
    await running.until_settled()


async def _restore(running: Deployment, postgres: PostgresServer, backup: str) -> None:
    await running.stop("relay", "postflight")
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(shutil.rmtree, postgres.data)
    await asyncio.to_thread(shutil.move, backup, postgres.data)
    await postgres.start_async()


def _own(postgres: PostgresServer, copy: str) -> None:
    """The copy is the server's user's, as the original."""
    original = os.stat(postgres.data)
    for folder, names, files in os.walk(copy):
        for path in [folder, *(os.path.join(folder, name) for name in (*names, *files))]:
            os.chown(path, original.st_uid, original.st_gid, follow_symlinks=False)


async def _book_what_was_forgotten(running: Deployment) -> None:
    for finding in [f async for f in findings(running.pool, kind="entry_forgotten")]:
        decision = Decision("book", "ada", "forgotten by the restore")
        answer = await resolve_finding(
            running.pool, running.functions, running.settings, finding.id, decision, wait_s=0
        )
        assert isinstance(answer, Resolved), answer


async def _frozen_reason(running: Deployment, account: str) -> str | None:
    row = await fetchrow(running.pool, query("recharge_checks.surroundings"), account, running.home(account))
    assert row is not None
    reason: str | None = row["frozen_reason"]
    return reason
