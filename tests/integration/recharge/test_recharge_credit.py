"""Driving and crediting: leases, fences, and one credit from whatever state."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from recharge_support import NO_WAIT, UNIT, Books

from billing.ledger.accounts import close
from billing.ledger.booking import EntryRequest, adjust, book
from billing.ledger.verify import verify
from billing.recharge import protocol
from billing.recharge.crediting import CreditBooked, NotCredited, credit_key
from billing.recharge.intents import LeaseLost, StoredIntent
from billing.recharge.policy import Refusal
from billing.recharge.protocol import PaymentSucceeded, State
from billing.recharge.store import RechargeStore


async def postings(books: Books) -> dict[str, int]:
    rows = await books.pool.fetch(
        "select p.ledger_account, sum(p.amount_micros)::bigint as total from postings p join journal j"
        " on j.id = p.journal_id where j.origin = 'recharge' group by p.ledger_account"
    )
    return {row["ledger_account"]: row["total"] for row in rows}


async def test_s35_a_credit_is_booked_with_the_state_and_sums_to_zero(books: Books) -> None:
    intent = await books.charged(await books.opened("acme", await books.low("acme")), "pi_1")
    booked = await books.store.credit(intent.id)
    assert isinstance(booked, CreditBooked)
    assert (booked.repeated, booked.intent.state) == (False, State.CREDITED)
    account = await books.account("acme")
    assert (account.balance_micros, account.ledger_seq) == (27 * UNIT, booked.intent.intent.credit_seq)
    assert await postings(books) == {"customer": 20 * UNIT, "gateway_clearing": -20 * UNIT}
    row = await books.pool.fetchrow("select idempotency_key, author from journal where origin = 'recharge'")
    assert row is not None
    assert tuple(row) == (credit_key(intent.timeline, "acme", 1), "billing/recharge")
    await adjust(books.pool, "acme", -20 * UNIT, "refunded by hand", author="tests")
    await books.verified()


async def test_s29_thirty_workers_credit_once(books: Books) -> None:
    intent = await books.charged(await books.opened("acme", await books.low("acme")), "pi_1")
    answers = await asyncio.gather(*(books.store.credit(intent.id) for _ in range(30)))
    assert sorted(answer.repeated for answer in answers if isinstance(answer, CreditBooked)) == [False] + [True] * 29
    assert (await books.account("acme")).balance_micros == 27 * UNIT
    await books.verified()


async def through(books: Books, state: State, account: str = "acme") -> StoredIntent:
    """An intent in `state`, its payment known where the state allows."""
    intent = await books.opened(account, await books.low(account))
    created, passed = protocol.Created(f"pi_{account}"), protocol.CheckPassed()
    declined, refused = protocol.PaymentDeclined("card_declined"), protocol.CheckRefused("x")
    ways: dict[State, tuple[protocol.Event, ...]] = {
        State.PROVING: (),
        State.CREATED: (created,),
        State.CONFIRMING: (created, passed),
        State.DECLINED: (created, passed, declined),
        State.WITHDRAWN: (created, refused),
        State.CANCELLED: (created, passed, declined, protocol.PaymentCancelled()),
        State.REFUSED: (refused,),
    }
    return await books.save(intent, *ways[state])


LATE = [
    *(State.PROVING, State.CREATED, State.CONFIRMING, State.DECLINED, State.WITHDRAWN, State.CANCELLED, State.REFUSED),
]


async def test_s50_a_success_is_credited_once_from_whatever_state(books: Books) -> None:
    for state in LATE:
        intent = await through(books, state, state.value)
        success = PaymentSucceeded(f"pi_{state}", 2000)
        answers = await asyncio.gather(*(books.store.credit(intent.id, success) for _ in range(5)))
        assert sum(isinstance(answer, CreditBooked) and not answer.repeated for answer in answers) == 1
        stored = await books.store.find_by_payment(f"pi_{state}")
        assert stored is not None
        assert (stored.state, stored.late) == (State.CREDITED, state in {State.CANCELLED, State.REFUSED})
        assert (await books.account(state.value)).balance_micros == 27 * UNIT
    await books.verified()


async def test_s50_a_late_success_waits_beside_the_next_and_never_charges_its_episode_again(books: Books) -> None:
    books.store = RechargeStore(books.pool, replace(NO_WAIT, decline_back_off_ms=(0,)))
    lost = await through(books, State.CANCELLED)
    following = await books.opened("acme", await books.view("acme"))
    assert (lost.episode, following.episode) == (1, 2)
    booked = await books.store.credit(lost.id, PaymentSucceeded("pi_acme", 2000))
    assert isinstance(booked, CreditBooked)
    assert {each.id for each in await books.store.open_of("acme")} == {lost.id, following.id}
    # the credit is seen by the last look of the one that follows, so it moves no money
    created = await books.save(following, protocol.Created("pi_2"))
    answer = await books.store.final(created, await books.view("acme"))
    assert not isinstance(answer, LeaseLost)
    assert answer.verdicts[-1].refusal is Refusal.NOT_BELOW_THRESHOLD
    seq = booked.intent.intent.credit_seq
    assert seq is not None
    read_back = await books.store.observe(lost.id, protocol.ReadBack(seq))
    assert read_back is not None
    assert read_back.state is State.CONFIRMED
    await books.save(answer.intent, protocol.PaymentCancelled())
    await books.use("acme", 25 * UNIT)
    assert (await books.opened("acme", await books.view("acme"))).episode == 3


async def test_a_closed_account_is_credited_what_was_taken(books: Books) -> None:
    intent = await books.charged(await books.opened("acme", await books.low("acme")), "pi_1")
    await close(books.pool, "acme", author="tests")
    assert isinstance(await books.store.credit(intent.id), CreditBooked)
    assert (await books.account("acme")).balance_micros == 27 * UNIT


async def test_nothing_is_credited_that_did_not_succeed(books: Books) -> None:
    intent = await through(books, State.CONFIRMING)
    answer = await books.store.credit(intent.id)
    assert isinstance(answer, NotCredited)
    with pytest.raises(protocol.IllegalEvent):
        await books.store.credit(intent.id, PaymentSucceeded("pi_other", 2000))
    with pytest.raises(LookupError):
        await books.store.credit(999)
    assert await postings(books) == {}


async def test_s37_a_worker_that_lost_its_lease_changes_nothing(books: Books) -> None:
    view = await books.low("acme")
    await books.store.evaluate("acme", view)
    (first,) = await books.store.lease(10, "w1", ttl_ms=1)
    taken = [first]
    while taken[-1].lease_owner != "w2":
        taken += await books.store.lease(10, "w2", ttl_ms=60_000)
    second = taken[-1]
    assert second.lease_epoch > first.lease_epoch
    assert isinstance(await books.store.save(first, protocol.Created("pi_1")), LeaseLost)
    assert isinstance(await books.store.final(first, view), LeaseLost)
    assert not await books.store.renew(first)
    assert not await books.store.release(first, again_in_ms=0)
    created = await books.save(second, protocol.Created("pi_1"))
    assert created.intent.payment_id == "pi_1"
    assert await books.store.release(created, again_in_ms=0)
    (third,) = await books.store.lease(10, "w3")
    assert third.state is State.CREATED


async def test_s29_an_outside_observation_fences_the_worker(books: Books) -> None:
    driven = await through(books, State.CONFIRMING)
    seen = await books.store.observe(driven.id, PaymentSucceeded("pi_acme", 2000))
    assert seen is not None
    assert seen.state is State.SUCCEEDED
    assert isinstance(await books.store.save(driven, protocol.PaymentAwaitsConfirmation()), LeaseLost)
    found = await books.store.find_by_episode("acme", 1, driven.timeline)
    assert found is not None
    assert found.id == driven.id
    assert await books.store.find_by_episode("acme", 1, "elsewhere") is None
    assert await books.store.observe(999, protocol.PaymentCancelled()) is None


FORBIDDEN = (
    "update recharge_intents set payment_id = 'pi_2'",
    "update recharge_intents set amount_micros = 1, amount_minor = 1",
    "update recharge_intents set customer = 'cus_2'",
    "update recharge_intents set episode = 9",
    "update recharge_intents set state = 'proving'",
    "update recharge_intents set state = 'confirmed'",
    "update recharge_intents set state = 'elsewhere'",
    "update recharge_intents set confirm_attempt = 0",
    "update recharge_intents set lease_epoch = -1",
    "delete from recharge_intents",
    "truncate recharge_intents cascade",
    "update recharge_episodes set episode = 0",
    "delete from recharge_evaluations",
    "update recharge_evaluations set checks = '[]'",
    "update recharge_breaker set open = true",
    "update recharge_switch set paused = true",
    "insert into recharge_actions (action, subject, author, reason) values ('reset', 'USD', ' ', 'x')",
    "update recharge_transitions set after = 'proving'",
)


async def test_r3_r6_the_database_itself_refuses(books: Books) -> None:
    await through(books, State.CREATED)
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.PostgresError):
            await books.pool.execute(statement)


async def test_the_database_knows_the_protocols_transitions(books: Books) -> None:
    """Every change of state that the protocol can make, and no other."""
    events: tuple[protocol.Event, ...] = (
        *(protocol.Proven(), protocol.CheckRefused("x"), protocol.CheckPassed(), protocol.Created("pi_1")),
        *(protocol.CreateImpossible("x"), protocol.OutcomeUnknown("x"), protocol.PaymentAwaitsConfirmation()),
        *(PaymentSucceeded("pi_1", 1), protocol.PaymentDeclined("x"), protocol.PaymentCancelled()),
        *(protocol.Credited(1), protocol.ReadBack(1)),
    )
    possible = set()
    for state in State:
        intent = protocol.Intent(state, payment_id="pi_1", credit_seq=1)
        for event in events:
            try:
                after = protocol.step(intent, event).state
            except protocol.IllegalEvent:
                continue
            if after is not state:
                possible.add((state.value, after.value))
    rows = await books.pool.fetch("select before, after from recharge_transitions")
    assert {(row["before"], row["after"]) for row in rows} == possible


async def test_verify_finds_a_recharge_without_its_entry_and_an_entry_without_its_recharge(books: Books) -> None:
    intent = await books.charged(await books.opened("acme", await books.low("acme")), "pi_1")
    await books.pool.execute("update recharge_intents set state = 'credited', credit_seq = 9 where id = $1", intent.id)
    await books.low("other")
    async with books.pool.acquire() as connection, connection.transaction():
        await book(connection, EntryRequest("other", UNIT, "recharge", "by hand", "tests"))
    failed = {check.name: check.violations for check in await verify(books.pool) if not check.passed}
    assert failed == {"recharges_are_booked": 2}
