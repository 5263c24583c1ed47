"""`billing explain`: both books side by side, and in words whether they agree; a book that is away is said to be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from command_runner import billing
from reconcile_harness import CREDIT, Deployment, deployed, now
from usage_builders import rates

from billing.balance.balances import Known, Unknown
from billing.cli.explain_json import fields
from billing.cli.explain_text import as_text
from billing.cli.explain_verdict import verdict
from billing.ledger.corrections import Refunded, refund_usage
from billing.ledger.rerate import resolve
from billing.ledger.rerate_apply import Applied, apply
from billing.ledger.tariffs import NEVER_MS, Loaded, load_tariff
from billing.reconcile.compare import Behind, Different, Equal
from billing.reconcile.explain import LedgerView, StoreView, judge, look_at_ledger, look_at_store
from billing.reconcile.health import expecting_reader
from billing.settings import Settings


async def look(deployment: Deployment, account: str) -> tuple[LedgerView, StoreView]:
    store = await look_at_store(deployment.reader, account)
    books = await look_at_ledger(deployment.pool, account, store, 50)
    assert books is not None
    return books, store


async def said(deployment: Deployment, account: str) -> str:
    books, store = await look(deployment, account)
    return verdict(books, store, judge(books, store))


CALL = {"direction": "outbound", "from": "+12025550100", "to": "+4930123456"}


async def test_r1_s46_what_makes_up_a_balance_from_both_books_and_why_they_differ(settings: Settings) -> None:
    async with deployed(settings) as deployment:
        deployment.start()
        account = await deployment.open()
        done = {**CALL, "call_id": "c1", "answered_at": now(), "duration_seconds": 60, "status": "completed"}
        await deployment.publish(account, "usage.call.completed.v1", done)
        await deployment.publish(account, "usage.call.started.v1", {**CALL, "call_id": "c2"})
        await deployment.until_settled()
        refunded = await refund_usage(deployment.pool, account, "c1", None, "bad line", author="ann")
        assert isinstance(refunded, Refunded)
        await deployment.until_settled()
        await agree(deployment, account)
        await re_rated(deployment, account)
        await one_is_behind(deployment, account)
        await redis_is_unknown(deployment, account)
        await they_differ(deployment, account)
        await the_command(settings, account)


async def agree(deployment: Deployment, account: str) -> None:
    books, store = await look(deployment, account)
    assert judge(books, store) == Equal()
    text = "\n".join(as_text(account, books, store, Equal()))
    for words in (
        "The two books agree.",
        "opened",
        "call c1: bad line (by ann)",
        "1 hold",
        "c2",
        "lease ends",
        "1 session",
    ):
        assert words in text
    shown = fields(account, books, store, Equal())
    assert shown["agree"] is True
    assert [entry["amount_micros"] for entry in shown["ledger"]["entries"]][1] == CREDIT
    assert shown["redis"]["held_micros"] == sum(hold["amount_micros"] for hold in shown["redis"]["holds"]) > 0
    assert sum(entry.amount_micros for entry in books.entries) == books.account.credit_micros
    assert sum(total.amount_micros for total in books.usage) == books.account.used_micros


async def re_rated(deployment: Deployment, account: str) -> None:
    """R5: what a dearer version charges reaches Redis as a debit that is not counted towards recharge."""
    dear = [
        msgspec.structs.replace(rate, rate_micros=rate.rate_micros + 100_000)
        for rate in rates()
        if rate.rate_micros < 10**9
    ]
    loaded = await load_tariff(deployment.pool, "basic", dear, "USD", author="ann", effective_ms=NEVER_MS)
    assert isinstance(loaded, Loaded)
    done = {**CALL, "call_id": "c0", "answered_at": now(), "duration_seconds": 60, "status": "completed"}
    await deployment.publish(account, "usage.call.completed.v1", done)
    await deployment.until_settled()
    found = await resolve(deployment.pool, "basic", None, 0, 2**50)
    assert isinstance(found, tuple)
    applied = await apply(deployment.pool, *found, author="ann", reason="wrong price")
    assert isinstance(applied, Applied)
    assert applied.now == 1  # the call that was refunded in full stays at nothing
    await deployment.until_settled()
    books, store = await look(deployment, account)
    assert judge(books, store) == Equal()
    assert isinstance(store.balance, Known)
    assert store.balance.excluded_micros == applied.in_all.charged_micros == -books.entries[0].amount_micros > 0


async def one_is_behind(deployment: Deployment, account: str) -> None:
    await deployment.stop("relay")
    await deployment.credit(account, 5)
    books, store = await look(deployment, account)
    assert judge(books, store) == Behind("store", "entries")
    assert "Redis is behind by 1 entry of the ledger (1 not yet published" in await said(deployment, account)
    deployment.start("relay")
    await deployment.until_settled()
    await deployment.stop("postflight")
    done = {**CALL, "call_id": "c3", "answered_at": now(), "duration_seconds": 60, "status": "completed"}
    await deployment.publish(account, "usage.call.completed.v1", done)

    async def charged() -> bool:
        return "The ledger is behind by 1 usage record" in await said(deployment, account)

    await deployment.until(charged)
    deployment.start("postflight")
    await deployment.until_settled()
    assert await said(deployment, account) == "The two books agree."


async def redis_is_unknown(deployment: Deployment, account: str) -> None:
    identity = await deployment.identity()
    other = type(identity)(identity.timeline, identity.partitions, (identity.incarnation or 0) + 1)
    store = await look_at_store(expecting_reader(deployment.functions, deployment.settings.topics, other), account)
    assert isinstance(store.balance, Unknown)
    books = await look_at_ledger(deployment.pool, account, store, 1)
    assert books is not None
    assert "Unknown is not zero" in verdict(books, store, judge(books, store))
    shown = fields(account, books, store, judge(books, store))
    assert (shown["agree"], shown["redis"]["available_micros"], shown["redis"]["holds"]) == (None, None, None)
    assert (books.earlier_entries, len(books.entries)) == (3, 1)


async def they_differ(deployment: Deployment, account: str) -> None:
    async with deployment.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")  # triggers off
        await connection.execute("update balances set credit_micros = credit_micros - 7 where account_id = $1", account)
    books, store = await look(deployment, account)
    assert judge(books, store) == Different(7)
    assert "Redis has 0.000007 more than the ledger" in verdict(books, store, judge(books, store))


async def the_command(settings: Settings, account: str) -> None:
    """1 where the books differ; both servers away are answers."""
    code, shown = await explained(settings, account)
    assert (code, shown["agree"]) == (1, False)
    code, shown = await explained(settings, account, BILLING_REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, shown["redis"]["status"], shown["ledger"]["status"]) == (0, "unknown", "known")
    code, shown = await explained(settings, account, BILLING_POSTGRES_DSN="postgresql://postgres@127.0.0.1:1/none")
    assert (code, shown["redis"]["status"], shown["ledger"]["status"]) == (0, "known", "away")


async def explained(settings: Settings, account: str, **environ: str) -> tuple[int, dict[str, Any]]:
    code, out, err = await billing(settings, "explain", account, "--json", **environ)
    assert not err, err
    return code, json.loads(out)
