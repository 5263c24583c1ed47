"""Old usage leaves for files, by the owner alone, named and in sums; the books stay provable."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from command_runner import billing, billing_json
from ledger_support import Ledger, charge, make_batch, names

from billing.ledger import archive as archive_module
from billing.ledger.archive import Archived, ArchiveRefused, archive_usage, archives
from billing.ledger.archive_files import problem_of
from billing.ledger.snapshots import account_snapshot
from billing.stream.sink import Applied

DAY_MS = 86_400_000
NOW_MS = 1_000 * DAY_MS  # the partition's log time


def quiet(_file: str, _sessions: int) -> None:
    """Progress is not looked at."""


@pytest.fixture
async def old(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Sixty sessions of three accounts, a free one among them, twelve days apart, the newest of today."""
    monkeypatch.setattr(archive_module, "FILE_SESSIONS", 5)
    accounts = names(0, 3)
    await ledger.open(*accounts, credit_micros=90_000_000)
    owner = await ledger.claim()
    for start in (0, 30):
        ops = [
            charge(
                *(i, accounts[i % 3], f"s{i}", 0 if i == 7 else 600_000),
                matched="" if i == 7 else "49",
                log_time_ms=NOW_MS - (59 - i) * 12 * DAY_MS,
            )
            for i in range(start, start + 30)
        ]
        batch = replace(make_batch(owner, start, ops), log_time_ms=NOW_MS)
        assert await ledger.sink.apply(batch) == Applied(start + 30)
    return ledger


async def run(ledger: Ledger, folder: Path, days: int = 400) -> Archived | ArchiveRefused:
    before_ms = NOW_MS - days * DAY_MS
    return await archive_usage(
        ledger.settings.owner_dsn, before_ms, folder, author="ann", reason="retention", progress=quiet
    )


async def test_r6_archived_usage_leaves_balanced_books_files_and_a_manifest(old: Ledger, tmp_path: Path) -> None:
    used = [await old.used(account) for account in names(0, 3)]
    answer = await run(old, tmp_path)
    assert isinstance(answer, Archived)
    assert answer.sessions == 26 == 60 - await old.count("usage")
    await old.verified()
    assert [await old.used(account) for account in names(0, 3)] == used
    found = await archives(old.runtime)
    assert [a.file for a in found] == list(answer.files)
    assert all(problem_of(tmp_path / a.file, a.sha256, a.sessions) is None for a in found)
    assert {(a.author, a.reason) for a in found} == {("ann", "retention")}
    rows = [json.loads(line) for a in found for line in gzip.decompress((tmp_path / a.file).read_bytes()).splitlines()]
    assert {row["session_id"] for row in rows} == {f"s{i}" for i in range(26)}
    assert sum(row["amount_micros"] for row in rows) == sum(sum(a.amounts.values()) for a in found) == 25 * 600_000
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [each["sha256"] for each in manifest] == [a.sha256 for a in found]
    again = await run(old, tmp_path)
    assert again == Archived(0, ())
    snapshot = await account_snapshot(old.runtime, names(0, 1)[0], 0, below_offset=59, settled_since_ms=0)
    assert getattr(snapshot, "used_micros", None) == used[0]


async def test_s20_what_a_repeat_can_still_reach_is_never_archived(old: Ledger, tmp_path: Path) -> None:
    answer = await run(old, tmp_path, days=1)
    assert isinstance(answer, Archived)
    youngest = await old.pool.fetchval("select min(log_time_ms) from usage")
    assert NOW_MS - 91 * DAY_MS <= youngest < NOW_MS - 79 * DAY_MS
    await old.verified()


async def test_a_crash_between_file_and_deletion_loses_nothing(
    old: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(*_file: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(archive_module, "read_back", power_cut)
    with pytest.raises(OSError, match="power cut"):
        await run(old, tmp_path)
    assert await old.count("usage") == 60
    monkeypatch.undo()
    answer = await run(old, tmp_path)
    assert isinstance(answer, Archived)
    assert answer.sessions == 26
    await old.verified()


async def test_r6_nothing_else_deletes_usage_not_even_the_owner(old: Ledger, tmp_path: Path) -> None:
    assert isinstance(await archive_usage(
        old.settings.postgres_dsn, NOW_MS, tmp_path, author="x", reason="y", progress=quiet), ArchiveRefused
    )  # fmt: skip
    add = (
        "with a as (insert into usage_archives (author, reason, before_ms, file, sha256, sessions, amounts)"
        " values ('x', 'y', $1, 'f', repeat('0', 64), $2, $3) returning id)"
        " select set_config('billing.archive', id::text, true) from a"
    )
    part = await old.pool.fetchval("select tableoid::regclass::text from usage limit 1")
    of_part = "(select count(*), jsonb_build_object('USD', sum(amount_micros))::text from {} where log_offset < 20)"
    sessions, amounts = await old.pool.fetchrow(of_part.format(part).strip("()"))
    for text in (f"delete from {part}", "delete from usage"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await old.pool.execute(text)
    wrong = [
        (NOW_MS, sessions, amounts, f"delete from {part}", asyncpg.CheckViolationError),  # too young
        (NOW_MS, sessions + 1, amounts, f"delete from {part} where log_offset < 20", asyncpg.CheckViolationError),
        (NOW_MS, sessions, '{"USD": 1}', f"delete from {part} where log_offset < 20", asyncpg.CheckViolationError),
        (NOW_MS, sessions, amounts, "delete from usage where log_offset < 20", asyncpg.RestrictViolationError),
        (NOW_MS, sessions, amounts, "update archived_accounts set sessions = 0", asyncpg.RestrictViolationError),
        (NOW_MS, sessions, amounts, f"truncate {part}", asyncpg.RestrictViolationError),
    ]
    for before_ms, count, sums, statement, error in wrong:
        async with old.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(add, before_ms, count, sums)
            with pytest.raises(error):
                await connection.execute(statement)
            await transaction.rollback()
    assert await old.count("usage_archives") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await old.runtime.execute(add, NOW_MS, sessions, amounts)


async def test_the_commands_archive_and_check_the_files(old: Ledger, tmp_path: Path) -> None:
    days_ms = int(time.time() * 1000) - (NOW_MS - 400 * DAY_MS)
    words = ("ledger", "archive", "--older-than", f"{days_ms // DAY_MS}d", "--to", str(tmp_path), "--by", "ann")
    answer = await billing_json(old.settings, *words, "--reason", "retention")
    assert answer["sessions"] == 60 - await old.count("usage") > 0
    found = await billing_json(old.settings, "ledger", "archives", "--check", str(tmp_path))
    assert {each["problem"] for each in found} == {None}
    (tmp_path / found[0]["file"]).write_bytes(b"rotten")
    found = await billing_json(old.settings, "ledger", "archives", "--check", str(tmp_path), code=1)
    assert found[0]["problem"] == "its SHA-256 differs"
    code, _, err = await billing(old.settings, *words[:2], "--older-than", "30d", *words[4:], "--reason", "x")
    assert (code, "at least 91d" in err) == (2, True)
    assert (await billing_json(old.settings, "ledger", "verify"))["ok"]
