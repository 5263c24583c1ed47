"""What must hold of recharges after the traffic: gateway, ledger and Redis against each other and against the usage
that the demo has sent. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billing.lab.books import Store
from billing.lab.checks import Check, example
from billing.lab.payments import Payment
from billing.lab.population import DemoAccount
from billing.lab.recharge_books import WORKER, IntentRow, RechargeBooks, UsedBy

DECLINED = "declined"
EXPLAINED = frozenset({DECLINED, "minimum_interval", "cap_money_day", "cap_count_day"})
"""What rightly keeps an account below its threshold for now: a limit that refuses, or a card that has been asked."""


@dataclass(frozen=True)
class Evidence:
    """All sides. `attempts` are (payment id, status) of every attempt on a card; `adjusted` is what was taken from
    accounts by hand (micro-units, below 0); `charged` is what their usage costs, priced by the demo."""

    accounts: Sequence[DemoAccount]
    payments: Sequence[Payment]
    attempts: Sequence[tuple[str, str]]
    books: RechargeBooks
    store: Store
    charged: Mapping[str, int]
    adjusted: Mapping[str, int]

    def received(self) -> dict[str, int]:
        """Account to what its succeeded payments brought in, as the gateway has it."""
        total: defaultdict[str, int] = defaultdict(int)
        for payment in self.payments:
            total[payment.account] += payment.received_micros
        return dict(total)

    def usage_level(self, account: DemoAccount) -> int:
        """Where usage and payments leave the account; what was taken by hand does not count (R5)."""
        return account.credit_micros + self.received().get(account.id, 0) - self.charged.get(account.id, 0)


def recharge_checks(evidence: Evidence) -> list[Check]:
    """Every check about recharges, by name."""
    return [
        _same_money(evidence),
        _confirmed(evidence),
        _one_per_episode(evidence),
        _justified(evidence),
        _declines(evidence),
        _nobody_forgotten(evidence),
        _suspensions(evidence),
    ]


def seconds_to_confirmed(evidence: Evidence) -> list[float]:
    """From the record that brought an account below its threshold (its time in the log) until its first recharge was
    read back, for every account that was charged, in ascending order. Later recharges may have to wait for the
    minimum interval, so they would say something else."""
    accounts = {account.id: account for account in evidence.accounts}
    found = []
    for intent in evidence.books.intents:
        account = accounts.get(intent.account)
        if account is None or intent.episode != 1 or intent.state != "confirmed" or intent.closed_ms is None:
            continue
        low_ms = evidence.books.used.get(account.id, UsedBy()).time_of_exceeding(
            account.credit_micros - (account.recharge_below_micros or 0)
        )
        if low_ms is not None:
            found.append((intent.closed_ms - low_ms) / 1000)
    return sorted(found)


def _same_money(evidence: Evidence) -> Check:
    received = evidence.received()
    booked: Counter[str] = Counter()
    for entry in evidence.books.credits:
        booked[entry.account] += entry.amount_micros
    wrong = []
    for account in evidence.accounts:
        record = evidence.store.accounts.get(account.id)
        live = None if record is None else record.credit - account.credit_micros - evidence.adjusted.get(account.id, 0)
        if not received.get(account.id, 0) == booked[account.id] == live:
            wrong.append((account.id, received.get(account.id, 0), booked[account.id], live))
    strangers = sorted((received.keys() | booked.keys()) - {account.id for account in evidence.accounts})
    succeeded = [payment for payment in evidence.payments if payment.succeeded]
    detail = f"{len(succeeded)} payments succeeded, {_sums(evidence, received)}, the same in all three"
    if wrong or strangers:
        detail = f"{len(wrong)} accounts differ (gateway, ledger, Redis){example([*wrong, *strangers])}"
    return Check("payments_are_recharges_are_credits", not (wrong or strangers), detail)


def _sums(evidence: Evidence, received: Mapping[str, int]) -> str:
    sums: Counter[str] = Counter()
    for account in evidence.accounts:
        sums[account.currency] += received.get(account.id, 0)
    return ", ".join(f"{currency} {sums[currency] // 1_000_000:,}" for currency in sorted(sums))


def _confirmed(evidence: Evidence) -> Check:
    paid = {payment.id for payment in evidence.payments if payment.succeeded}
    confirmed = {intent.payment_id for intent in evidence.books.intents if intent.state == "confirmed"}
    unfinished = [intent for intent in evidence.books.intents if intent.open]
    unseen = [intent for intent in evidence.books.intents if intent.credit_seq and not _shown(evidence, intent)]
    hanging = [payment.id for payment in evidence.payments if not payment.final]
    bad = [*sorted(paid ^ confirmed, key=str), *unfinished, *unseen, *hanging]
    detail = f"{len(confirmed)} read back from Redis, no intent and no payment left open"
    if bad:
        detail = f"{len(paid - confirmed)} paid but not confirmed, {len(confirmed - paid)} confirmed but not paid, "
        detail += f"{len(unfinished)} intents and {len(hanging)} payments open, {len(unseen)} credits not in Redis"
    return Check("every_recharge_confirmed", not bad, detail + example(bad))


def _shown(evidence: Evidence, intent: IntentRow) -> bool:
    record = evidence.store.accounts.get(intent.account)
    return record is not None and intent.credit_seq is not None and record.ledger_seq >= intent.credit_seq


def _one_per_episode(evidence: Evidence) -> Check:
    accounts = {account.id: account for account in evidence.accounts}
    intents = {(intent.account, intent.episode, intent.timeline): intent for intent in evidence.books.intents}
    seen: set[tuple[str, int, str]] = set()
    bad = []
    for payment in evidence.payments:
        if not payment.succeeded:
            continue
        episode = (payment.account, payment.episode, payment.timeline)
        intent, account = intents.get(episode), accounts.get(payment.account)
        sound = (
            *(intent is not None and intent.payment_id == payment.id, episode not in seen),
            account is not None and payment.received_micros == account.recharge_by_micros,
        )
        seen.add(episode)
        if not all(sound):
            bad.append(payment)
    detail = f"{len(seen)} episodes of {len({account for account, _, _ in seen})} accounts, each charged once"
    return Check("one_charge_per_episode", not bad, detail + example(bad))


def _justified(evidence: Evidence) -> Check:
    """As of the log position that the books had reached, usage alone had brought the account below its threshold."""
    accounts = {account.id: account for account in evidence.accounts}
    paid = {payment.id for payment in evidence.payments if payment.succeeded}
    charged_before: Counter[str] = Counter()
    bad, found = [], set()
    for intent in evidence.books.intents:  # in the order of episodes
        if intent.payment_id not in paid:
            continue
        found.add(intent.payment_id)
        account = accounts[intent.account]
        used = evidence.books.used.get(account.id, UsedBy()).below(intent.usage_position)
        level = account.credit_micros + charged_before[account.id] - used
        charged_before[account.id] += intent.amount_micros
        below = account.recharge_below_micros
        if account.quiet or used <= 0 or below is None or level >= below:
            bad.append((intent.account, intent.episode, level, below))
    quiet = [account for account in evidence.accounts if account.quiet]
    detail = f"{len(found)} charges, each below the threshold by usage; none of the {len(quiet)} accounts without usage"
    bad += [(payment, 0, 0, 0) for payment in sorted(paid - found)]
    return Check("charged_only_because_of_usage", not bad, f"{len(bad)} were not{example(bad)}" if bad else detail)


def _declines(evidence: Evidence) -> Check:
    """A card that declines is asked once, its payment is cancelled, and then there is peace (S36)."""
    declining = {account.id for account in evidence.accounts if account.declines}
    owner = {payment.id: payment.account for payment in evidence.payments}
    failed = Counter(owner.get(payment, "") for payment, status in evidence.attempts if status != "succeeded")
    bad: list[object] = [payment for payment in evidence.payments if payment.account in declining and payment.succeeded]
    bad += [payment for payment in evidence.payments if payment.account in declining and payment.status != "canceled"]
    bad += [(account, times) for account, times in failed.items() if times > 1 or account not in declining]
    asked = {payment.account for payment in evidence.payments} & declining
    detail = f"{len(asked)} cards declined when charged, each once, payments cancelled; "
    detail += f"{len(evidence.books.refused_cards)} declined when saved"
    return Check("declines_are_handled", not bad, detail + example(bad))


def _nobody_forgotten(evidence: Evidence) -> Check:
    """Who is still below the threshold has a named limit in the way; whose card declines has been asked."""
    reasons, forgotten = still_low(evidence), forgotten_accounts(evidence)
    detail = "still low, for a reason: " + (_counts(Counter(reasons.values())) or "nobody")
    if forgotten:
        detail = f"{len(forgotten)} accounts are low and nothing says why{example(forgotten)}"
    return Check("everyone_low_was_recharged", not forgotten, detail)


def _suspensions(evidence: Evidence) -> Check:
    """Only accounts that usage has exhausted beyond their credit limit."""
    accounts = {account.id: account for account in evidence.accounts}
    wrong = []
    for ident, author in evidence.books.suspended.items():
        account = accounts.get(ident)
        exhausted = account is not None and evidence.usage_level(account) + account.credit_limit_micros <= 0
        if not exhausted or author != WORKER:
            wrong.append((ident, author))
    detail = f"{len(evidence.books.suspended)} suspended, every one exhausted by usage"
    return Check("suspended_only_when_exhausted", not wrong, f"wrongly {example(wrong)}" if wrong else detail)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(counts.items()))


def still_low(evidence: Evidence) -> dict[str, str]:
    """Accounts that usage keeps below their threshold, each with what stands in the way of its recharge as the ledger
    has it ("": nothing)."""
    asked = {payment.account for payment in evidence.payments} | evidence.books.refused_cards
    low = {}
    for account in evidence.accounts:
        below = account.recharge_below_micros
        if account.quiet or below is None or evidence.usage_level(account) >= below:
            continue
        declined = account.declines and account.id in asked
        low[account.id] = DECLINED if declined else evidence.books.limiting.get(account.id, "")
    return low


def forgotten_accounts(evidence: Evidence) -> list[tuple[str, str]]:
    """Accounts that are low though nothing explains it, with the reason that explains nothing: work to be done."""
    return [(account, reason) for account, reason in still_low(evidence).items() if reason not in EXPLAINED]
