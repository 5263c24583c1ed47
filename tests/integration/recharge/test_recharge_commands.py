"""The commands that people have for recharge: looking, explaining, stopping, correcting."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from recharge_support import NO_WAIT, UNIT, Books

from billing.cli import cli
from billing.recharge import protocol
from billing.recharge.evaluation import RefusedBy
from billing.recharge.policy import Refusal
from billing.recharge.store import RechargeStore
from billing.settings import Settings


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return {
        "BILLING_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "BILLING_REDIS_URL": settings.redis_url,
        "BILLING_POSTGRES_DSN": settings.postgres_dsn,
        "BILLING_NAMESPACE": settings.namespace,
    }


async def invoke(environment: dict[str, str], *args: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, args, env=environment)


async def answer(environment: dict[str, str], *args: str) -> Any:
    result = await invoke(environment, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def test_charges_are_listed_and_explained(books: Books, environment: dict[str, str]) -> None:
    assert await answer(environment, "recharges") == []
    view = await books.low("acme")
    intent = await books.confirmed(await books.opened("acme", view), "pi_1")
    assert isinstance(await books.store.evaluate("acme", await books.view("acme")), RefusedBy)
    (row,) = await answer(environment, "recharges", "acme")
    assert (row["id"], row["state"], row["payment_id"], row["amount_minor"]) == (intent.id, "confirmed", "pi_1", 2000)
    assert await answer(environment, "recharges", "nobody") == []
    newest, oldest = await answer(environment, "recharges", "explain", "acme")
    assert (newest["refusal"], newest["recharge"]) == ("not_below_threshold", None)
    assert (oldest["refusal"], oldest["recharge"]) == (None, intent.id)
    assert [check["check"] for check in oldest["checks"]] == ["store", "level", "ledger", "episode", "caps"]
    assert oldest["checks"][1]["seen"]["level_micros"] == 7 * UNIT
    assert await answer(environment, "recharges", "explain", str(intent.id)) == [oldest]
    text = (await invoke(environment, "recharges", "explain", "acme")).output
    assert "refused: not_below_threshold" in text
    assert "level 7.00" in text
    result = await invoke(environment, "recharges", "explain", "nobody")
    assert result.exit_code != 0
    assert "there is no account and no recharge 'nobody'" in result.output
    assert "20.00 USD" in (await invoke(environment, "recharges")).output


async def test_r4_pausing_says_who_and_why_and_is_remembered(books: Books, environment: dict[str, str]) -> None:
    view = await books.low("acme")
    created = await books.save(await books.opened("acme", view), protocol.Created("pi_1"))
    who = ("--by", "ada", "--reason", "gateway incident")
    assert await answer(environment, "recharge", "pause", *who) == {"paused": True, "changed": True}
    assert await answer(environment, "recharge", "pause", *who) == {"paused": True, "changed": False}
    withdrawn = await books.store.final(created, view)
    assert withdrawn.verdicts[-1].refusal is Refusal.PAUSED  # type: ignore[union-attr]  # not LeaseLost
    other = await books.store.evaluate("other", await books.low("other"))
    assert isinstance(other, RefusedBy)
    assert other.refusal is Refusal.PAUSED
    assert (await answer(environment, "recharge", "status"))["by"] == "ada"
    assert (await invoke(environment, "recharge", "resume", "--by", " ", "--reason", "x")).exit_code != 0
    assert (await answer(environment, "recharge", "resume", *who))["changed"]
    actions = await books.pool.fetch("select action, subject, author, reason from recharge_actions order by id")
    assert [tuple(row) for row in actions] == [
        ("pause", "all", "ada", "gateway incident"),
        ("resume", "all", "ada", "gateway incident"),
    ]


async def test_r4_a_breaker_is_shown_and_reset_by_a_person(books: Books, environment: dict[str, str]) -> None:
    environment["BILLING_BREAKER_PER_MINUTE"] = "30.00"
    limited = NO_WAIT.__class__(minimum_interval_ms=0, breaker_per_minute_micros=30 * UNIT)
    books.store = RechargeStore(books.pool, limited)
    await books.opened("acme", await books.low("acme"))
    refused = await books.store.evaluate("other", await books.low("other"))
    assert isinstance(refused, RefusedBy)
    assert refused.refusal is Refusal.BREAKER_TRIPPED
    (row,) = await answer(environment, "breaker", "status")
    assert (row["currency"], row["open"], row["tripped_by"]) == ("USD", True, "other")
    assert (row["used_micros"], row["limit_micros"]) == (20 * UNIT, 30 * UNIT)
    assert (await invoke(environment, "breaker", "reset", "--by", "ada")).exit_code == 2
    done = await answer(environment, "breaker", "reset", "--by", "ada", "--reason", "looked at it")
    assert done == {"reset": ["USD"]}
    (row,) = await answer(environment, "breaker", "status")
    assert (row["open"], row["reset_by"], row["reset_reason"]) == (False, "ada", "looked at it")


async def test_r5_adjust_and_acknowledge_from_the_command_line(books: Books, environment: dict[str, str]) -> None:
    await books.open("acme", credit_micros=20 * UNIT)
    args = ("acme", "-5.00", "--reason", "wrong tariff", "--by", "ada", "--no-wait")
    booked = await answer(environment, "account", "adjust", *args)
    assert (booked["balance_micros"], booked["ledger_seq"]) == (15 * UNIT, 2)
    assert (await books.account("acme")).excluded_micros == 5 * UNIT
    done = await answer(environment, "account", "acknowledge", "acme", "--by", "ada", "--no-wait")
    assert (done["amount_micros"], done["ledger_seq"]) == (5 * UNIT, 3)
    assert (await books.account("acme")).excluded_micros == 0
    rows = await books.pool.fetch("select origin, author from journal where account_id = 'acme' and ledger_seq > 1")
    assert [tuple(row) for row in rows] == [("adjustment", "ada"), (None, "ada")]
    result = await invoke(environment, "account", "adjust", "acme", "0", "--reason", "x", "--by", "ada", "--no-wait")
    assert result.exit_code != 0
    assert (await answer(environment, "account", "credit", "acme", "1.50", "--reason", "x", "--no-wait"))[
        "repeated"
    ] is False
    await books.verified()


async def test_recharge_can_be_switched_off_and_declines_forgiven(books: Books, environment: dict[str, str]) -> None:
    view = await books.low("acme")
    await books.declined(await books.opened("acme", view), "pi_1")
    refused = await books.store.evaluate("acme", view)
    assert isinstance(refused, RefusedBy)
    books.store = RechargeStore(books.pool, NO_WAIT)
    refused = await books.store.evaluate("acme", view)
    assert isinstance(refused, RefusedBy)
    assert refused.refusal is Refusal.DECLINES_BACK_OFF
    assert await answer(environment, "recharge", "forgive", "acme", "--by", "ada", "--reason", "bank called")
    await books.declined(await books.opened("acme", view), "pi_2")
    who = ("--by", "ada", "--reason", "the customer asked")
    assert (await answer(environment, "account", "set", "acme", "--no-recharge", *who, "--no-wait"))["changed"]
    entry = await books.pool.fetchrow("select author, reason from journal where kind = 'changed'")
    assert tuple(entry) == ("ada", "the customer asked")
    refused = await books.store.evaluate("acme", view)
    assert isinstance(refused, RefusedBy)
    assert refused.refusal is Refusal.NOT_CONFIGURED
