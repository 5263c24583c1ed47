"""Driving one intent: what the protocol asks for next, one side effect at a time, persisted before the next one.

A worker that lost its lease does nothing more (S37): every save is fenced by the lease, the lease outlasts any call
that is begun under it by the monotonic clock, and a confirmation is sent only within seconds of the last look.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.recharge import metrics, outcomes
from billing.recharge.balances import Balances, NoProof, Proof
from billing.recharge.crediting import NotCredited
from billing.recharge.evaluation import Passed, Withdrawn
from billing.recharge.gateway import Gateway, Metadata, PaymentRequest
from billing.recharge.intents import LeaseLost, StoredIntent
from billing.recharge.policy import Verdict
from billing.recharge.protocol import (
    CLOSED,
    Action,
    CheckPassed,
    CheckRefused,
    Credited,
    Event,
    OutcomeUnknown,
    Proven,
    ReadBack,
    State,
    key,
    next_action,
)
from billing.recharge.store import RechargeStore
from billing.stream.backoff import Clock

log = structlog.get_logger(__name__)

TURN_S = 60.0  # how long one worker stays with one intent before it lets go
PATIENCE_MS = 20_000  # how long a new intent waits for a store that is not well
READ_BACK_PATIENCE_S = 3.0
READ_BACK_EVERY_S = 0.02
FIRST_WAIT_MS, LONGEST_WAIT_MS = 250, 30_000
STORE_CALL_S = 12.0  # what a proof with the ledger's part takes at most
NOT_CREDITED_MS = 60_000
TROUBLE_MS, BUG_MS = 1_000, 60_000
REFUSED_AGAIN_MS, REJECTED_AGAIN_MS = 5_000, 60_000


@dataclass(slots=True)
class Turn:
    """One worker's time with one intent. `leased_until_s` of the monotonic clock, reckoned from before the lease was
    asked for; `proof` and `checked_s` are of this turn alone. `signalled_ms`: the signal that it began with."""

    stored: StoredIntent
    leased_until_s: float
    signalled_ms: int | None = None
    proof: Proof | None = None
    checked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Let go, and look again in so many ms."""

    ms: int


class Lost:
    """The lease is another's: not one step more."""


Step: TypeAlias = Event | Wait | Lost
"""What a step came to: an event (persisted), or the end of the turn."""


class Driver:
    """Shared by all turns of a worker."""

    def __init__(
        self,
        store: RechargeStore,
        gateway: Gateway,
        balances: Balances,
        clock: Clock,
        *,
        gateway_deadline_ms: int,
        lease_ms: int,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._balances = balances
        self._clock = clock
        self._lease_ms = lease_ms
        self._call_s = gateway_deadline_ms / 1000
        self._proof_age_s = store.limits.proof_age_ms / 1000
        self._steps: dict[Action, Callable[[Turn], Awaitable[Step]]] = {
            Action.PROVE: self._prove,
            Action.CREATE: self._create,
            Action.CHECK: self._check,
            Action.CONFIRM: self._confirm,
            Action.READ: self._read,
            Action.CREDIT: self._credit,
            Action.READ_BACK: self._read_back,
            Action.CANCEL: self._cancel,
        }

    def turn(self, stored: StoredIntent, asked_s: float, signalled_ms: int | None = None) -> Turn:
        """A turn under a lease that was asked for at `asked_s` of the monotonic clock."""
        return Turn(stored, asked_s + self._lease_ms / 1000, signalled_ms)

    async def drive(self, turn: Turn) -> None:
        """Go on with the intent until it is closed, waits for something, or is another's. Raises nothing."""
        try:
            async with asyncio.timeout(TURN_S):
                wait = await self._until_it_waits(turn)
        except Exception as error:
            bug = trouble_of(error) is Trouble.BUG
            metrics.broken.labels("intent").inc()
            report = log.exception if bug else log.warning
            report("recharge.broke_off", intent=turn.stored.id, state=turn.stored.state.value, error=describe(error))
            wait = Wait(BUG_MS if bug else TROUBLE_MS)
        try:
            await self._let_go(turn, wait)
        except Exception as error:  # the lease ends by itself
            log.warning("recharge.not_released", intent=turn.stored.id, error=describe(error))

    async def _until_it_waits(self, turn: Turn) -> Wait | Lost | None:
        """None: closed."""
        came_from: Event | None = None
        while (action := next_action(turn.stored.intent, came_from)) is not Action.NOTHING:
            if not await self._hold(turn, action):
                return Lost()
            step = await self._steps[action](turn)
            if isinstance(step, Wait | Lost):
                return step
            came_from = step
        return None

    async def _hold(self, turn: Turn, action: Action) -> bool:
        """Whether the lease outlasts this step; it is renewed by the ledger's clock where it would not."""
        needed_s = STORE_CALL_S if action in (Action.PROVE, Action.CHECK) else self._call_s + 1.0
        needed_s = min(needed_s, self._lease_ms / 1000 - 1.0)
        now_s = self._clock.monotonic()
        if now_s + needed_s <= turn.leased_until_s:
            return True
        if action is Action.CONFIRM:  # renewing takes time, and the last look was just before
            turn.checked_s = None
            return True
        if not await self._store.renew(turn.stored, self._lease_ms):
            return False
        turn.leased_until_s = now_s + self._lease_ms / 1000
        return True

    async def _let_go(self, turn: Turn, wait: Wait | Lost | None) -> None:
        stored = turn.stored
        match wait:
            case Wait(ms=ms):
                await self._store.release(stored, again_in_ms=ms)
            case Lost():
                log.info("recharge.lease_lost", intent=stored.id, state=stored.state.value)
            case None:
                _count_closed(turn)
                log.info("recharge.closed", account=stored.account, intent=stored.id, state=stored.state.value)
                if stored.state is not State.CONFIRMED:
                    await self._store.look_again(stored.account, _again_ms(stored))

    # --- the steps, each one side effect and its event ----------------------------------------------------

    async def _prove(self, turn: Turn) -> Step:
        answer = await self._balances.prove(turn.stored)
        if isinstance(answer, Proof):
            turn.proof = answer
            return await self._save(turn, Proven(), answer.verdict)
        if answer.passing and _age_ms(turn.stored) < PATIENCE_MS:
            return _wait(turn.stored)
        return await self._save(turn, _refused(answer.verdict), answer.verdict)

    async def _create(self, turn: Turn) -> Step:
        stored = turn.stored
        if not self._proof_is_fresh(turn):
            return OutcomeUnknown("the proof is too old")  # proves again
        request = PaymentRequest(
            metadata=Metadata(stored.account, stored.episode, stored.timeline),
            customer=stored.customer,
            payment_method=stored.payment_method,
            amount_minor=stored.amount_minor,
            currency=stored.currency,
        )
        outcome = await self._gateway.create(request, idempotency_key=_key(stored, Action.CREATE))
        return await self._save_or_wait(turn, outcomes.after_create(outcome))

    async def _check(self, turn: Turn) -> Step:
        """The last look. Its answer is `confirming` or `withdrawn`, persisted in the transaction that looked."""
        proof = turn.proof if self._proof_is_fresh(turn) else await self._balances.prove(turn.stored)
        assert proof is not None
        turn.proof = proof if isinstance(proof, Proof) else None
        seen = await self._balances.look(turn.stored.account)
        passing = not seen.view.healthy or (isinstance(proof, NoProof) and proof.passing)
        if passing and _age_ms(turn.stored) < PATIENCE_MS:
            return _wait(turn.stored)  # no money has moved, and everything is looked at anew
        looked_s = self._clock.monotonic()
        final = await self._store.final(turn.stored, seen.view, (proof.verdict,))
        match final:
            case Passed(intent=intent):
                turn.stored, turn.checked_s = intent, looked_s
                return CheckPassed()
            case Withdrawn(intent=intent):
                turn.stored = intent
                log.info("recharge.withdrawn", account=intent.account, intent=intent.id, reason=intent.intent.reason)
                return CheckRefused(intent.intent.reason or "")
            case LeaseLost():
                return Lost()

    async def _confirm(self, turn: Turn) -> Step:
        """Money moves here and nowhere else."""
        stored = turn.stored
        assert stored.intent.payment_id is not None
        if turn.checked_s is None or self._clock.monotonic() - turn.checked_s > self._proof_age_s:
            return OutcomeUnknown("the last look is too old")  # nothing was sent; reads the payment, then looks again
        outcome = await self._gateway.confirm(stored.intent.payment_id, idempotency_key=_key(stored, Action.CONFIRM))
        event = outcomes.after_confirm(outcome)
        if isinstance(event, OutcomeUnknown):
            log.warning("recharge.outcome_unknown", intent=stored.id, reason=event.reason)
            return event  # read next, in this turn
        return await self._save(turn, event)

    async def _read(self, turn: Turn) -> Step:
        payment = turn.stored.intent.payment_id
        assert payment is not None
        event = outcomes.after_read(await self._gateway.read(payment))
        self._say_not_found(turn, event)
        return await self._save_or_wait(turn, event)

    async def _credit(self, turn: Turn) -> Step:
        epoch = turn.stored.lease_epoch
        answer = await self._store.credit(turn.stored.id)
        if isinstance(answer, NotCredited):
            log.error("recharge.not_credited", intent=turn.stored.id, reason=answer.reason)
            return Wait(NOT_CREDITED_MS)
        if answer.intent.lease_epoch != epoch:
            return Lost()
        turn.stored = answer.intent
        assert turn.stored.intent.credit_seq is not None
        return Credited(turn.stored.intent.credit_seq)

    async def _read_back(self, turn: Turn) -> Step:
        """Until Redis shows the credit: for a moment here, then again and again in later turns, for ever (S32)."""
        wanted = turn.stored.intent.credit_seq
        assert wanted is not None
        until_s = self._clock.monotonic() + READ_BACK_PATIENCE_S
        while True:
            seen = await self._balances.look(turn.stored.account)
            if seen.known is not None and seen.known.ledger_seq >= wanted:
                return await self._save(turn, ReadBack(seen.known.ledger_seq))
            if self._clock.monotonic() >= until_s:
                return _wait(turn.stored)
            await self._clock.sleep(READ_BACK_EVERY_S)

    async def _cancel(self, turn: Turn) -> Step:
        """Cancelling is idempotent by nature, so its key is a new one each time: no saved 5xx can stand in its way."""
        payment = turn.stored.intent.payment_id
        assert payment is not None
        outcome = await self._gateway.cancel(payment, idempotency_key=f"cancel:{payment}:{secrets.token_hex(8)}")
        event = outcomes.after_cancel(outcome)
        self._say_not_found(turn, event)
        return await self._save_or_wait(turn, event)

    # --- around the steps ---------------------------------------------------------------------------------

    async def _save(self, turn: Turn, event: Event, *verdicts: Verdict) -> Step:
        saved = await self._store.save(turn.stored, event, verdicts=verdicts, stage="proof")
        if isinstance(saved, LeaseLost):
            return Lost()
        turn.stored = saved
        return event

    async def _save_or_wait(self, turn: Turn, event: Event) -> Step:
        """Nothing follows from an unknown outcome but another look, later."""
        if isinstance(event, OutcomeUnknown):
            log.warning("recharge.outcome_unknown", intent=turn.stored.id, reason=event.reason)
            return _wait(turn.stored)
        return await self._save(turn, event)

    def _proof_is_fresh(self, turn: Turn) -> bool:
        return turn.proof is not None and self._clock.monotonic() - turn.proof.at_s <= self._proof_age_s

    def _say_not_found(self, turn: Turn, event: Event) -> None:
        if event == OutcomeUnknown(outcomes.NOT_FOUND):
            stored = turn.stored
            log.error("recharge.payment_not_found", intent=stored.id, account=stored.account, state=stored.state.value)


def _key(stored: StoredIntent, action: Action) -> str:
    attempt = stored.intent.create_attempt if action is Action.CREATE else stored.intent.confirm_attempt
    return key(stored.timeline, stored.account, stored.episode, action, attempt)


def _refused(verdict: Verdict) -> CheckRefused:
    assert verdict.refusal is not None
    return CheckRefused(verdict.refusal.value)


def _age_ms(stored: StoredIntent) -> int:
    """By the ledger's clock: every lease and every save has moved `updated_at`."""
    return int((stored.updated_at - stored.created_at).total_seconds() * 1000)


def _again_ms(stored: StoredIntent) -> int:
    """A check may pass soon; what the gateway cannot make, or a bank declined, wants longer (and has its back-off)."""
    by_gateway = stored.state is State.CANCELLED or (stored.intent.reason or "").startswith(("rejected:", "declined:"))
    return REJECTED_AGAIN_MS if by_gateway else REFUSED_AGAIN_MS


def _wait(stored: StoredIntent) -> Wait:
    """The older, the longer."""
    return Wait(max(FIRST_WAIT_MS, min(LONGEST_WAIT_MS, _age_ms(stored) // 4)))


def _count_closed(turn: Turn) -> None:
    stored = turn.stored
    assert stored.state in CLOSED
    if stored.state is State.CONFIRMED and turn.signalled_ms is not None and stored.closed_at is not None:
        metrics.confirmed_seconds.observe(max(0.0, stored.closed_at.timestamp() - turn.signalled_ms / 1000))
