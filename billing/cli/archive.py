"""`billing ledger archive`, `archives`: old settled usage in files."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from billing.cli.common import (
    by_option,
    json_option,
    ledger,
    print_fields,
    print_json,
    print_rows,
    reason_option,
    refuse,
    run,
)
from billing.ledger.archive import MIN_DAYS, Archived, ArchiveRefused, archive_usage
from billing.ledger.archive import archives as list_archives
from billing.ledger.archive_files import problem_of
from billing.settings import Settings

DAY_MS = 86_400_000


class Days(click.ParamType[int]):
    """A number of days such as 400d; becomes days."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,5})d", str(value))
        if match is None or int(match[1]) < MIN_DAYS:
            self.fail(f"{value!r} is not a number of days such as 400d, at least {MIN_DAYS}d", param, ctx)
        return int(match[1])


@click.command("archive")
@click.option("--older-than", "days", type=Days(), required=True, help="For example 400d; at least 91d.")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="A folder.")
@by_option
@reason_option
@json_option
def archive(days: int, folder: Path, by: str, reason: str, as_json: bool) -> None:
    """Move settled sessions out of the ledger into compressed files, for good.

    Their sums stay: balances, entries and `billing ledger verify` are as before. Needs BILLING_POSTGRES_OWNER_DSN. Safe
    while consumers run, and to interrupt.
    """
    settings = Settings.from_env()
    older_than_ms = int(time.time() * 1000) - days * DAY_MS

    def show(file: str, sessions: int) -> None:
        if not as_json:
            click.echo(f"{file}: {sessions} sessions so far", err=True)

    try:
        answer = run(archive_usage(settings.owner_dsn, older_than_ms, folder, author=by, reason=reason, progress=show))
    except OSError as error:
        refuse(f"{error}; what had been archived before stays so")
    if isinstance(answer, ArchiveRefused):
        refuse(answer.reason)
    assert isinstance(answer, Archived)
    print_fields({"sessions": answer.sessions, "files": len(answer.files)}, as_json=as_json)


@click.command("archives")
@click.option(
    "--check", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Read the files."
)
@json_option
def archives(folder: Path | None, as_json: bool) -> int:
    """Every archive; with --check, whether its file is there and unchanged (exit code 1 when not)."""

    async def work() -> list[dict[str, Any]]:
        async with ledger(Settings.from_env()) as pool:
            return [asdict(found) for found in await list_archives(pool)]

    rows = run(work())
    if folder is not None:
        for row in rows:
            row["problem"] = problem_of(folder / row["file"], row["sha256"], row["sessions"])
    if as_json:
        print_json(rows)
    else:
        shown = ("id", "archived_at", "author", "sessions", "file", "problem")
        print_rows([{n: row[n] for n in shown if n in row} for row in rows], as_json=False, empty="no archives")
    return 1 if any(row.get("problem") for row in rows) else 0
