"""`billing recharges`, `billing recharge`, `billing breaker`: what was charged, why, why not; and the switches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from billing.cli.answers import explain_refusal
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
from billing.cli.explaining import evaluation_fields, evaluation_lines, intent_fields
from billing.cli.restored import reconciled
from billing.cli.taken_back import taken_back
from billing.ledger.database import Pool
from billing.money import format_micros
from billing.recharge import listing, switches
from billing.recharge.limits import limits_from_env
from billing.recharge.switches import NotAttributed
from billing.settings import Settings

T = TypeVar("T")


def _with_ledger(work: Callable[[Pool], Awaitable[T]]) -> T:
    async def body() -> T:
        async with ledger(Settings.from_env()) as pool:
            return await work(pool)

    return run(body())


class _Listing(click.Group):
    """`recharges` and `recharges ID` list; `recharges explain ID` explains."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Listing)
def recharges() -> None:
    """Charges and attempts at them, newest first: all, or one account's (`billing recharges ID`)."""


@recharges.command("list", hidden=True)
@click.argument("account_id", metavar="[ID]", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many.")
@json_option
def list_(account_id: str | None, limit: int | None, as_json: bool) -> None:
    """Charges and attempts at them, newest first."""

    async def work(pool: Pool) -> list[dict[str, Any]]:
        rows = []
        async for stored in listing.recharges(pool, account_id):
            rows.append(intent_fields(stored, brief=not as_json))
            if limit is not None and len(rows) >= limit:
                break
        return rows

    print_rows(_with_ledger(work), as_json=as_json, empty="no recharges")


recharges.add_command(taken_back)


@recharges.command("explain")
@click.argument("ident", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many.")
@json_option
def explain(ident: str, limit: int, as_json: bool) -> None:
    """Every check with what it saw, for charges and refusals, newest first. ID: an account, or a recharge's number."""
    found = _with_ledger(lambda pool: listing.explanation(pool, ident, limit))
    if found is None:
        refuse(f"there is no account and no recharge {ident!r}")
    if as_json:
        print_json([evaluation_fields(evaluation) for evaluation in found.evaluations])
        return
    if not found.evaluations:
        click.echo(f"account {found.account} was never evaluated: no signal, and no sweep, has named it")
    for evaluation in found.evaluations:
        for line in evaluation_lines(evaluation, found.currency):
            click.echo(line)


@click.group()
def recharge() -> None:
    """Pause and resume charging; forgive declines."""


recharge.add_command(reconciled)


@recharge.command("pause")
@by_option
@reason_option
@json_option
def pause(by: str, reason: str, as_json: bool) -> None:
    """Charge nobody; what is not yet confirmed is withdrawn. What was charged is still credited."""
    changed = _attributed(_with_ledger(lambda pool: switches.pause(pool, author=by, reason=reason)))
    print_fields({"paused": True, "changed": changed}, as_json=as_json)


@recharge.command("resume")
@by_option
@reason_option
@json_option
def resume(by: str, reason: str, as_json: bool) -> None:
    """Let charging go on."""
    changed = _attributed(_with_ledger(lambda pool: switches.resume(pool, author=by, reason=reason)))
    print_fields({"paused": False, "changed": changed}, as_json=as_json)


@recharge.command("forgive")
@click.argument("account_id", metavar="ID")
@by_option
@reason_option
@json_option
def forgive(account_id: str, by: str, reason: str, as_json: bool) -> None:
    """Let an account's declines count no more: try its card again. A new payment method does that by itself."""
    answer = _attributed(_with_ledger(lambda pool: switches.forgive(pool, account_id, author=by, reason=reason)))
    if answer is not None:
        refuse(explain_refusal(answer))
    print_fields({"account": account_id, "forgiven": True}, as_json=as_json)


@recharge.command("status")
@json_option
def status(as_json: bool) -> None:
    """Whether charging is paused, by whom and why."""
    switch = _with_ledger(switches.switch)
    fields = {
        "paused": switch.paused,
        "by": switch.author,
        "reason": switch.reason,
        "since": switch.changed_at,
        "timeline": switch.timeline,
        "reconciled_with_gateway": switch.reconciled,
    }
    print_fields(fields, as_json=as_json)


@click.group()
def breaker() -> None:
    """The breakers on money per minute, one per currency (BILLING_BREAKER_PER_MINUTE, default 10000.00 of each)."""


@breaker.command("status")
@json_option
def breaker_status(as_json: bool) -> None:
    """Every currency's breaker, and what counts towards it now."""
    limits = limits_from_env()
    found = _with_ledger(lambda pool: switches.breakers(pool, limits))
    print_rows([_breaker(each, as_json=as_json) for each in found], as_json=as_json, empty="nothing was ever charged")


def _breaker(each: switches.Breaker, *, as_json: bool) -> dict[str, Any]:
    amounts: dict[str, Any] = {"used_micros": each.used_micros, "limit_micros": each.limit_micros}
    if not as_json:
        amounts = {
            "last minute": format_micros(each.used_micros, each.currency),
            "limit": format_micros(each.limit_micros, each.currency),
        }
    return {
        "currency": each.currency,
        "open": each.open,
        **amounts,
        "tripped_at": each.tripped_at,
        "tripped_by": each.tripped_by,
        "reset_at": each.reset_at,
        "reset_by": each.reset_by,
        "reset_reason": each.reset_reason,
    }


@breaker.command("reset")
@click.option("--currency", help="Only this one.")
@by_option
@reason_option
@json_option
def breaker_reset(currency: str | None, by: str, reason: str, as_json: bool) -> None:
    """Close open breakers, after a person has looked; counting begins anew."""
    done = _attributed(
        _with_ledger(lambda pool: switches.breaker_reset(pool, author=by, reason=reason, currency=currency))
    )
    print_fields({"reset": done if as_json else ", ".join(done) or "none was open"}, as_json=as_json)


def _attributed(answer: T | NotAttributed) -> T:
    if isinstance(answer, NotAttributed):
        refuse(f"--{answer.field} {answer.problem}")
    return answer
