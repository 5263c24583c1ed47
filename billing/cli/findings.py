"""`billing findings`: what a person should look at, and what was done about it."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import click

from billing.cli.answers import explain_refusal, in_words
from billing.cli.common import (
    AMOUNT,
    by_option,
    json_option,
    ledger,
    print_fields,
    print_json,
    print_rows,
    reason_option,
    refuse,
    run,
    store,
)
from billing.ledger.findings import Finding, findings, show
from billing.money import format_micros
from billing.reconcile.advice import advice
from billing.reconcile.resolving import Decision, NotResolved, Resolved, Way, resolve_finding
from billing.settings import Settings

WAIT_SECONDS = 20.0
WAYS: dict[str, Way] = {
    "repair_view": "repair_view",
    "correct_ledger": "correct_ledger",
    "recompute_ledger": "recompute_ledger",
    "book": "book",
    "anyway": "accept",
}


@click.group("findings")
def findings_group() -> None:
    """What a person should look at: books that differ, payments nobody asked for, what a restored ledger forgot."""


@findings_group.command("list")
@click.option("--all", "every", is_flag=True, help="Resolved ones too.")
@click.option("--account", "account_id", metavar="ID", help="Only this account's.")
@click.option("--kind", help="Only this kind.")
@json_option
def list_(every: bool, account_id: str | None, kind: str | None, as_json: bool) -> None:
    """Open findings in the order in which they were recorded."""

    async def work() -> list[Finding]:
        async with ledger(Settings.from_env()) as pool:
            found = findings(pool, only_open=not every, account=account_id, kind=kind)
            return [finding async for finding in found]

    rows = [_fields(found) if as_json else _brief(found) for found in run(work())]
    print_rows(rows, as_json=as_json, empty="no findings" if every else "no open findings")


@findings_group.command("show")
@click.argument("number", type=click.IntRange(min=1), metavar="ID")
@json_option
def show_(number: int, as_json: bool) -> None:
    """One finding with all that was seen, and what became of it."""

    async def work() -> Finding | None:
        async with ledger(Settings.from_env()) as pool:
            return await show(pool, number)

    found = run(work())
    if found is None:
        refuse(f"there is no finding {number}")
    if as_json:
        print_json(_fields(found))
        return
    fields = _fields(found)
    detail, resolution = fields.pop("detail"), fields.pop("resolution")
    advised = fields.pop("advice")
    print_fields({**fields, **in_words(detail, found.currency), **(resolution or {"resolved": "no"})}, as_json=False)
    if advised is not None:
        click.echo(f"\n{fill(advised, 110)}")


@findings_group.command("resolve")
@click.argument("number", type=click.IntRange(min=1), metavar="ID")
@click.option("--repair-view", is_flag=True, help="Redis is wrong: work the account out anew from the ledger.")
@click.option(
    "--correct-ledger",
    type=AMOUNT,
    metavar="AMOUNT",
    help="The ledger is wrong: book a correction, below 0 a debit; Redis follows.",
)
@click.option("--recompute-ledger", is_flag=True, help="The ledger's balance is not the sum of its entries: set it so.")
@click.option("--book", is_flag=True, help="Book the payment or entry that the ledger forgot; at most once.")
@click.option("--anyway", is_flag=True, help="Let the difference stand, and the account go.")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 600), default=WAIT_SECONDS, show_default=True)
@by_option
@reason_option
@json_option
def resolve(number: int, wait_s: float, as_json: bool, **given: Any) -> int:
    """End a finding, and let its account be charged and suspended again.

    A finding about the books ends only when they agree (which is waited for), or with --anyway. Exit code 1 when they
    still do not: what was booked stays, the same command again goes on.
    """
    asked = [way for option, way in WAYS.items() if given[option] is not None and given[option] is not False]
    if len(asked) > 1:
        refuse("one way at a time")
    if given["correct_ledger"] == 0:
        refuse("--correct-ledger: AMOUNT must not be 0")
    amount_micros = given["correct_ledger"] or 0
    decision = Decision(asked[0] if asked else "look", given["by"], given["reason"], amount_micros)

    async def work() -> Resolved | NotResolved:
        settings = Settings.from_env()
        async with ledger(settings) as pool, store(settings) as functions:
            return await resolve_finding(pool, functions, settings, number, decision, wait_s=wait_s)

    answer = run(work())
    if isinstance(answer, NotResolved):
        why = answer.reason if answer.refusal is None else f"{answer.reason}: {explain_refusal(answer.refusal)}"
        if as_json:
            print_json({"finding": number, "resolved": False, "reason": why})
        else:
            click.echo(f"billing: {why}", err=True)
        return 1
    fields: dict[str, Any] = {"finding": number, "resolved": True, "action": answer.action}
    fields |= {"ledger_seq": answer.ledger_seq}
    fields |= {"booked_micros": answer.amount_micros} if as_json else {"booked": _booked(answer)}
    print_fields(fields, as_json=as_json)
    return 0


def _booked(answer: Resolved) -> str:
    if answer.amount_micros:
        return f"{format_micros(answer.amount_micros, answer.currency)} {answer.currency}"
    if answer.ledger_seq is not None:
        return "no money: Redis has worked the account out anew"
    return "nothing: the books agree" if answer.action == "agreed" else "nothing"


def _fields(found: Finding) -> dict[str, Any]:
    resolution = found.resolution
    return {
        "id": found.id,
        "kind": found.kind,
        "found_at": found.found_at,
        "account": found.account,
        "partition": found.partition,
        "subject_kind": found.subject_kind,
        "subject": found.subject,
        "kept_offset": found.kept_offset,
        "refused_offset": found.refused_offset,
        "currency": found.currency,
        "detail": found.detail,
        "advice": advice(found),
        "resolution": None
        if resolution is None
        else {
            "resolved_at": resolution.resolved_at,
            "by": resolution.author,
            "why": resolution.reason,
            "action": resolution.action,
            "booked": resolution.detail,
        },
    }


def _brief(found: Finding) -> dict[str, Any]:
    return {
        "id": found.id,
        "found_at": found.found_at.isoformat(timespec="seconds"),
        "kind": found.kind,
        "account": found.account,
        "subject": found.subject,
        "what": found.detail.get("seen") or found.detail.get("why"),
        "resolved": "open" if found.resolution is None else found.resolution.action,
    }
