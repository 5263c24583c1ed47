"""Corrections and statements as an operator runs them: exit codes, one-line refusals, JSON in micro-units."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

from command_runner import billing, billing_json

from billing.ledger.database import open_pool
from billing.ledger.migrate import Migrated, migrate
from billing.ledger.opening import open_account
from billing.ledger.sink import PostgresSink
from billing.ledger.tariffs import Loaded, load_tariff
from billing.ledger.terms import NewAccount, Opened
from billing.rating.tariff_csv import COLUMNS, parse_tariff
from billing.settings import Settings
from billing.stream.record import StoredRecord, fingerprint
from billing.stream.sink import Applied, Batch, Claimed
from billing.usage.ops import Charge
from billing.usage.partitioner import home_partition

RIGHT = ",".join(COLUMNS) + "\ncall,outbound,49,0.30,60,6,,,Germany\n"
WRONG = RIGHT.replace("0.30", "0.60")
BY = ("--by", "ann", "--reason", "wrong price")
SPAN = ("--plan", "basic", "--from", "1970-01-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z")


async def prepare(settings: Settings) -> None:
    """Account acme paid 20.00 and called Germany twice, 0.60 each."""
    migrated = await migrate(settings.owner_dsn, settings.partitions, settings.postgres_dsn)
    assert isinstance(migrated, Migrated)
    pool = await open_pool(settings.postgres_dsn)
    rates = parse_tariff(WRONG.encode())
    assert isinstance(rates, tuple)
    assert isinstance(await load_tariff(pool, "basic", rates, "USD", author="t"), Loaded)
    assert isinstance(await open_account(pool, NewAccount("acme", "USD", "basic", 20_000_000), author="t"), Opened)
    partition = home_partition("acme", settings.partitions)
    sink = PostgresSink(pool, settings)
    claimed = await sink.claim(partition, "t")
    assert isinstance(claimed, Claimed)
    charges = [
        Charge(
            *(i, 1000, "acme", "call", f"c{i}", 600_000, "USD", "basic", 1, 1000, "call", "outbound"),
            *("+4930", "+4940", 60, "completed", "49", f"e{i}", "t"),
        )
        for i in range(2)
    ]
    record = StoredRecord("usage.events", partition, 1, 1000, b"acme", b"{}")
    batch = Batch(claimed.owner, "usage.events", partition, 0, 2, fingerprint(record), 1000, charges)
    assert await sink.apply(batch) == Applied(2)
    await pool.close()


async def refused(settings: Settings, *words: str) -> str:
    code, out, err = await billing(settings, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
    return err


async def test_corrections_and_statements_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    await prepare(settings)
    refund = ("usage", "refund", "acme", "c0", "--by", "ann", "--reason", "bad line", "--no-wait")
    part = await billing_json(settings, *refund, "--amount", "0.25", "--key", "k")
    assert (part["refunded_micros"], part["left_micros"], part["balance_micros"]) == (250_000, 350_000, 19_050_000)
    assert (await billing_json(settings, *refund, "--amount", "0.25", "--key", "k"))["repeated"] is True
    assert "asks for something else" in await refused(settings, *refund, "--amount", "0.20", "--key", "k")
    assert "only 0.35 of the 0.60 USD of call c0" in await refused(settings, *refund, "--amount", "0.36")
    assert len(await billing_json(settings, "usage", "acme")) == 2

    (tmp_path / "right.csv").write_text(RIGHT)
    load = ("tariff", "load", "basic", str(tmp_path / "right.csv"), "--currency", "USD", "--for-rerating")
    assert (await billing_json(settings, *load))["effective_ms"] is None
    dry = await billing_json(settings, "rerate", *SPAN)
    assert (dry["applied"], dry["tariff_version"], dry["changed"], dry["difference_micros"]) == (False, 2, 2, 600_000)
    assert [each["account"] for each in dry["accounts"]] == ["acme"]
    _, table, _ = await billing(settings, "rerate", *SPAN, "--format", "csv")
    assert [row["difference"] for row in csv.DictReader(io.StringIO(table))] == ["0.60"]
    assert "needs --by and --reason" in await refused(settings, "rerate", *SPAN, "--apply")
    done = await billing_json(settings, "rerate", *SPAN, "--apply", *BY)
    assert (done["corrected_now"], done["given_back_micros"], done["entries"]) == (2, 600_000, 1)
    assert (await billing_json(settings, "rerate", *SPAN, "--apply", *BY))["corrected_now"] == 0
    assert "later version 2" in await refused(settings, "rerate", *SPAN, "--tariff-version", "1")
    assert "no tariff version 7" in await refused(settings, "rerate", *SPAN, "--tariff-version", "7")

    month = f"{datetime.now(UTC):%Y-%m}"
    statement = await billing_json(settings, "statement", "acme", "--month", month)
    assert (statement["opening_micros"], statement["closing_micros"], statement["state"]) == (0, 19_650_000, "open")
    assert [(line["kind"], line["reason"]) for line in statement["corrections"]] == [
        ("refund", "bad line"),
        ("rerate", "wrong price"),
    ]
    assert "there is no account 'nobody'" in await refused(settings, "statement", "nobody")
    taken = ("recharges", "taken-back", "1", "--chargeback", *BY)
    assert "there is no recharge 1" in await refused(settings, *taken, "--gateway-id", "dp_1")
    assert "begins with dp_ or du_" in await refused(settings, *taken, "--gateway-id", "re_1")
    checks = await billing_json(settings, "ledger", "verify")
    assert checks["ok"] is True
