"""The balance store as the worker sees it: guard's verdict, balances, and write proofs, each as the checks take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from billing.balance.balances import Known, NoSuchAccount, Unknown
from billing.balance.calls import Functions
from billing.balance.client import Client
from billing.balance.proof import Durability, Expected, ProofRefused, ProofUnavailable, Proved, prove
from billing.guard.verdict import GuardVerdict
from billing.ledger.incarnations import Identity
from billing.recharge import metrics
from billing.recharge.intents import StoredIntent
from billing.recharge.policy import Refusal, StoreView, Verdict
from billing.reconcile.health import expecting_reader
from billing.settings import Topics
from billing.stream.backoff import Clock

PROOF_DEADLINE_S = 5.0


class Verdicts(Protocol):
    """The guard: its newest verdict, unhealthy where that is too old."""

    def verdict(self) -> GuardVerdict: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at an account. `known` is None where the store is unhealthy or the balance unknown."""

    view: StoreView
    known: Known | None


@dataclass(frozen=True, slots=True)
class Proof:
    """A write proof that held; it began at `at_s` of the worker's monotonic clock."""

    proved: Proved
    verdict: Verdict
    at_s: float


@dataclass(frozen=True, slots=True)
class NoProof:
    """Why there is none. `passing`: no answer, or a store that may be well again in a moment."""

    verdict: Verdict
    passing: bool


class Balances:
    """`functions` on a plain client; `discover` makes a new client that finds the primary anew."""

    def __init__(
        self,
        functions: Functions,
        topics: Topics,
        *,
        guard: Verdicts,
        discover: Callable[[], Client],
        clock: Clock,
        durability: Durability,
    ) -> None:
        self._functions = functions
        self._topics = topics
        self._guard = guard
        self._discover = discover
        self._clock = clock
        self._durability = durability

    @property
    def healthy(self) -> bool:
        """Whether the store as a whole is to be trusted now."""
        return self._guard.verdict().healthy

    async def look(self, account: str) -> Seen:
        """The account now, as check 1 sees it. Never raises for a store that is away."""
        verdict = self._guard.verdict()
        expected = self._expected(verdict)
        if expected is None:
            return Seen(StoreView(healthy=False, health_reason=verdict.reason, unknown=None), None)
        answer = await expecting_reader(self._functions, self._topics, expected).read_balance(account)
        match answer:
            case Known():
                return Seen(_view(answer), answer)
            case Unknown(reason=reason):
                return Seen(StoreView(healthy=True, health_reason="healthy", unknown=reason), None)
            case NoSuchAccount():
                return Seen(StoreView(healthy=True, health_reason="healthy", unknown="no_account"), None)

    async def prove(self, stored: StoredIntent) -> Proof | NoProof:
        """Check 6 for an intent: its marker is written, and read again over a new connection."""
        at_s, verdict = self._clock.monotonic(), self._guard.verdict()
        expected = self._expected(verdict)
        if expected is None:
            metrics.proofs.labels(Refusal.STORE_UNHEALTHY.value).inc()
            refused = Verdict("proof", Refusal.STORE_UNHEALTHY, {"health": verdict.reason})
            return NoProof(refused, passing=True)
        answer = await prove(
            self._functions,
            stored.home_partition,
            stored.account,
            f"{stored.timeline}:{stored.episode}",
            expected=Expected(expected.incarnation or 0, stored.timeline, stored.usage_position),
            discover=self._discover,
            durability=self._durability,
            deadline_s=PROOF_DEADLINE_S,
        )
        match answer:
            case Proved():
                metrics.proofs.labels("proved").inc()
                return Proof(answer, Verdict("proof", None, _seen(answer)), at_s)
            case ProofRefused(reason=reason, detail=detail):
                metrics.proofs.labels(reason.value).inc()
                seen = {"refused": reason.value, "detail": detail}
                return NoProof(Verdict("proof", Refusal.PROOF_FAILED, seen), passing=False)
            case ProofUnavailable(reason=text):
                metrics.proofs.labels("unavailable").inc()
                return NoProof(Verdict("proof", Refusal.PROOF_FAILED, {"unavailable": text}), passing=True)

    def _expected(self, verdict: GuardVerdict) -> Identity | None:
        """What the ledger expects of the store, as the guard's newest look had it; None: the store is not healthy."""
        timeline, incarnation = verdict.seen.get("timeline"), verdict.seen.get("incarnation")
        if not verdict.healthy or not isinstance(timeline, str) or not isinstance(incarnation, int):
            return None
        return Identity(timeline, self._functions.keys.partitions, incarnation)


def _view(known: Known) -> StoreView:
    return StoreView(
        healthy=True,
        health_reason="healthy",
        unknown=None,
        credit_micros=known.credit_micros,
        used_micros=known.used_micros,
        excluded_debits_micros=known.excluded_micros,
        usage_position=known.usage_position,
        log_time_ms=known.log_time_ms,
    )


def _seen(proved: Proved) -> dict[str, object]:
    return {
        "level_micros": proved.level_micros,
        "ledger_seq": proved.ledger_seq,
        "incarnation": proved.incarnation,
        "epoch": proved.owner.epoch,
        "usage_position": proved.usage_position,
        "run_id": proved.run_id,
        "replicas": proved.replicas_acknowledged,
    }
