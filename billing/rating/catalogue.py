"""The catalogue: an in-memory view of `billing.tariffs`, which both consumers price from.

Whoever follows the topic reads it from its beginning to the end that it had at the start before pricing anything
(compaction may leave an older heartbeat before a republished version), and then keeps applying.
"""

from __future__ import annotations

import msgspec

from billing.rating.tariff import Tariff
from schemas.catalogue import Heartbeat, PlanAssignment, TariffVersion, decode_catalogue
from schemas.common import MalformedMessage

LEAD_MS = 600_000
"""Every version after the first takes effect at least this long after it was committed, by the ledger's clock."""


class PlanVersion(msgspec.Struct, frozen=True, gc=False):
    """An account has `plan` from `effective_ms` on."""

    effective_ms: int
    version: int
    plan: str


class AccountEntry(msgspec.Struct, frozen=True, gc=False):
    """What the catalogue knows of an account. Usage counts from `usage_position` of the home partition on, where it is
    since `placed_ms` (0: since it was opened). `plans` has the last to take effect first; almost always it is one tuple
    shared by all accounts of a plan."""

    plans: tuple[PlanVersion, ...]
    home_partition: int
    usage_position: int
    placed_ms: int = 0


class Catalogue:
    """Tariff versions, plan assignments and the horizon up to which they are complete.

    `apply` may see any message any number of times. `conflict` is one line on what does not fit together (a record
    of another timeline, a version with two contents, a plan with two currencies), else None; with a conflict
    nothing may be priced any more, and the follower halts. `partitions`: the number of partitions that the accounts'
    homes are complete for, as the newest heartbeat says; 0 while none has said.
    """

    def __init__(self) -> None:
        self.timeline: str | None = None
        self.conflict: str | None = None
        self.horizon_ms: int | None = None
        self.partitions = 0
        self._accounts: dict[str, AccountEntry] = {}
        self._tariffs: dict[str, tuple[Tariff, ...]] = {}  # by plan, the last to take effect first
        self._only: dict[str, Tariff] = {}  # of plans with one version of their tariff, the first
        self._last_entry: dict[tuple[int, str], AccountEntry] = {}
        self._shared: dict[tuple[int, int, str], tuple[PlanVersion, ...]] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def apply(self, value: bytes | None) -> None:
        """Take in one record's value. Raises MalformedMessage for a record that is no catalogue message;
        a tombstone is passed."""
        if value is None:
            return
        message = decode_catalogue(value)
        if self.timeline is None:
            self.timeline = message.timeline
        elif message.timeline != self.timeline:
            self._clash(f"timeline {message.timeline} after {self.timeline}")
            return
        match message:
            case PlanAssignment():
                self._assign(message)
            case Heartbeat():
                if message.as_of_ms + LEAD_MS >= (self.horizon_ms or 0):
                    self.horizon_ms, self.partitions = message.as_of_ms + LEAD_MS, message.partitions
            case TariffVersion():
                self._add_tariff(message)

    def account(self, account: str) -> AccountEntry | None:
        """The account's entry, or None where the catalogue does not list it (yet)."""
        return self._accounts.get(account)

    def plans(self) -> list[str]:
        """The plans that have a tariff."""
        return sorted(self._tariffs)

    def plan_at(self, account: AccountEntry, price_time_ms: int) -> str | None:
        """The account's plan at a time; None only before the first version has been read."""
        for assigned in account.plans:
            if assigned.effective_ms <= price_time_ms or assigned.effective_ms == 0:
                return assigned.plan
        return None

    def tariff_at(self, plan: str, price_time_ms: int) -> Tariff | None:
        """The plan's tariff at a time; None for a plan without one."""
        for tariff in self._tariffs.get(plan, ()):
            if tariff.effective_ms <= price_time_ms or tariff.effective_ms == 0:
                return tariff
        return None

    def price_plan(self, account: AccountEntry, price_time_ms: int) -> Tariff | None:
        """The tariff version (it names its plan) that prices the account's usage at `price_time_ms`.

        Final only up to `horizon_ms`: a later time must wait.
        """
        plan = self.plan_at(account, price_time_ms)
        return None if plan is None else self.tariff_at(plan, price_time_ms)

    def only_tariff(self, account: AccountEntry) -> Tariff | None:
        """The tariff that prices all of the account's usage, whatever its time; None where neither the plan nor its
        tariff has only one version (ask `price_plan`)."""
        plans = account.plans
        return self._only.get(plans[0].plan) if len(plans) == 1 and plans[0].effective_ms == 0 else None

    def _assign(self, message: PlanAssignment) -> None:
        key = (message.effective_ms, message.version, message.plan)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = (PlanVersion(*key),)
        known = self._accounts.get(message.account)
        if known is None:
            self._accounts[message.account] = self._entry(shared, message)
            return
        here, there = (known.home_partition, known.usage_position), (message.home_partition, message.usage_position)
        if message.placed_ms == known.placed_ms and here != there:
            self._clash(f"account {message.account}: two places where its usage begins")
        same = next((plan for plan in known.plans if plan.version == message.version), None)
        plans = known.plans
        if same is None:
            plans = tuple(sorted((*known.plans, *shared), key=_order_of_effect, reverse=True))
        elif same != shared[0]:
            self._clash(f"account {message.account}: version {message.version} of its plan has two contents")
        if message.placed_ms > known.placed_ms:
            self._accounts[message.account] = self._entry(plans, message)
        elif same is None:
            self._accounts[message.account] = AccountEntry(plans, *here, known.placed_ms)

    def _entry(self, plans: tuple[PlanVersion, ...], at: PlanAssignment) -> AccountEntry:
        """One for all accounts that came to the same place one after the other, as by an import."""
        last = self._last_entry.get((at.home_partition, plans[0].plan))
        entry = AccountEntry(plans, at.home_partition, at.usage_position, at.placed_ms)
        if last == entry:
            return last
        self._last_entry[at.home_partition, plans[0].plan] = entry
        return entry

    def _add_tariff(self, message: TariffVersion) -> None:
        _check_rates(message)
        known = self._tariffs.get(message.plan, ())
        same = next((tariff for tariff in known if tariff.version == message.version), None)
        if same is None:
            if known and known[0].currency != message.currency:
                self._clash(f"plan {message.plan}: currencies {known[0].currency} and {message.currency}")
                return
            versions = tuple(sorted((*known, Tariff(message)), key=_order_of_effect, reverse=True))
            self._tariffs[message.plan] = versions
            self._only.pop(message.plan, None)
            if len(versions) == 1 and versions[0].effective_ms == 0:
                self._only[message.plan] = versions[0]
        elif same.content != message:
            self._clash(f"plan {message.plan}: version {message.version} of its tariff has two contents")

    def _clash(self, what: str) -> None:
        self.conflict = self.conflict or f"billing.tariffs: {what}"


def _order_of_effect(version: PlanVersion | Tariff) -> tuple[int, int]:
    return version.effective_ms, version.version


def _check_rates(message: TariffVersion) -> None:
    """Refuse what would divide by zero or never match; the tariff parser lets none of it through."""
    for rate in message.rates:
        if rate.kind == "call" and not (rate.first_increment_seconds and rate.next_increment_seconds):
            raise MalformedMessage(
                f"billing.tariffs: plan {message.plan}: {rate.match}: a call rate without increments"
            )
        if (rate.kind == "item") != (rate.direction == ""):
            raise MalformedMessage(f"billing.tariffs: plan {message.plan}: {rate.match}: direction and kind differ")
