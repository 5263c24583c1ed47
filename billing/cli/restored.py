"""`billing ledger restored`, `billing recharge reconciled`: the way back after PostgreSQL was restored."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import asyncpg
import click

from billing.cli.common import (
    MOMENT,
    by_option,
    json_option,
    ledger,
    print_fields,
    reason_option,
    refuse,
    run,
)
from billing.cli.errors import in_plain_words
from billing.ledger.findings import open_counts
from billing.ledger.history import suspected
from billing.ledger.terms import text_problem
from billing.recharge import switches
from billing.recharge.payments import PaymentSweep
from billing.recharge.store import RechargeStore
from billing.recharge.stripe_gateway import StripeGateway
from billing.recharge.switches import NotAttributed
from billing.recharge.worker_settings import WorkerSettings
from billing.reconcile.restoring import PutBack, begin_timeline, present_timeline, put_back
from billing.settings import Settings
from billing.stream.backoff import SystemClock
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway

DAY_MS = 86_400_000
LOOK_BACK_DAYS = 30


@click.command()
@click.option("--again", is_flag=True, help="Only look through the log again, in the timeline that has begun.")
@by_option
@reason_option
@json_option
def restored(again: bool, by: str, reason: str, as_json: bool) -> None:
    """Say that PostgreSQL was restored to an earlier time, or a standby that was behind was promoted.

    Begins a new timeline, puts back from the log what the ledger forgot (tariffs, accounts, plans), and records a
    finding for each forgotten credit or correction. Then: `billing findings resolve ID --book` for those, start
    post-flight and relay, `billing rebuild`, and `billing recharge reconciled`; nobody is charged until then. The new
    timeline is begun as BILLING_POSTGRES_OWNER_DSN.
    """
    _attributed(by, reason)

    async def work() -> PutBack:
        settings = Settings.from_env()
        async with ledger(settings) as pool, LogReader(settings.kafka_bootstrap, client_id="billing-cli") as reader:
            await reader.bounds(settings.topics.tariffs, 0)  # is Kafka there? before anything is changed
            if again:
                done = await present_timeline(pool)
            else:
                async with ledger(replace(settings, postgres_dsn=settings.owner_dsn)) as owner:
                    done = await begin_timeline(owner, author=by, reason=reason)
            return await put_back(pool, reader, settings, done, author=by)

    try:
        done = run(work())
    except asyncpg.InsufficientPrivilegeError:
        refuse("only the ledger's owner begins a timeline: set BILLING_POSTGRES_OWNER_DSN")
    except LogAway as error:
        hint = "run it again with --again once a new timeline has begun (billing recharge status)"
        refuse(f"Kafka: {in_plain_words(error)}; {hint}")
    print_fields(asdict(done), as_json=as_json)


@click.command()
@click.option("--since", "since_ms", type=MOMENT, help="Go back to it; 30 days when it is not given.")
@by_option
@reason_option
@json_option
def reconciled(since_ms: int | None, by: str, reason: str, as_json: bool) -> int:
    """Let charging go on in a new timeline, once every charge at the gateway is known here.

    Goes through the gateway's payments: a success that an intent remembers is credited, any other becomes a finding.
    Refuses while a finding about a payment is open (`billing findings list`, `resolve ID --book`).
    """
    _attributed(by, reason)

    async def work() -> tuple[str | None, dict[str, Any]]:
        asked = WorkerSettings.from_env()
        async with ledger(Settings.from_env()) as pool:
            if (why := await suspected(pool)) is not None:
                return f"the ledger may have been restored ({why}): `billing ledger restored` comes first", {}
            gateway = StripeGateway(asked.stripe, deadline_ms=asked.timing.gateway_deadline_ms)
            store = RechargeStore(pool, asked.limits)
            try:
                sweep = PaymentSweep(store, gateway, SystemClock())
                since = since_ms if since_ms is not None else await store.now_ms() - LOOK_BACK_DAYS * DAY_MS
                done: dict[str, Any] = {str(k): n for k, n in (await sweep.look(since)).items()}
            finally:
                await gateway.close()
            if not sweep.complete:
                return "the gateway did not show its whole list of payments", done
            waiting = {kind: n for kind, n in (await open_counts(pool)).items() if kind.startswith("payment_")}
            if waiting:
                return f"{sum(waiting.values())} findings about payments are open: `billing findings list`", done
            evidence = f"{reason} (gateway's payments looked through: {done or 'nothing was missing'})"
            answer = await switches.reconciled(pool, author=by, reason=evidence[:500])
            return (f"--{answer.field} {answer.problem}" if isinstance(answer, NotAttributed) else None), done

    why, done = run(work())
    if why is not None and not as_json:
        click.echo(f"billing: {why}", err=True)
    if why is None or as_json:
        print_fields({"reconciled": why is None, "why_not": why, "found": done or None}, as_json=as_json)
    return 0 if why is None else 1


def _attributed(by: str, reason: str) -> None:
    for name, value in (("by", by), ("reason", reason)):
        problem = text_problem(value, empty=False)
        if problem is not None:
            refuse(f"--{name} {problem}")
