"""The accounts of a benchmark: as many as wanted, and one busy account per partition for the hot arm."""

from __future__ import annotations

from collections.abc import Iterator

from billing.lab.bench.mix import Line
from billing.lab.population import PLANS, tariff_file
from billing.ledger.terms import NewAccount
from billing.rating.tariff_csv import TariffRefused, parse_tariff
from billing.usage.partitioner import home_partition
from schemas.catalogue import Heartbeat, PlanAssignment, TariffVersion, catalogue_key, encode_catalogue
from schemas.ledger import AccountOpened, encode_entry

CREDIT_MICROS = 1_000_000_000
"""Of each account: enough that a benchmark brings nobody below the threshold, as almost nobody is at any moment."""

HOT_CREDIT_MICROS = 10**15
RECHARGE_BELOW_MICROS, RECHARGE_BY_MICROS = 5_000_000, 20_000_000
PLAN_NAMES = tuple(PLANS)


class People:
    """`homes[p]` are the accounts at home in partition p; `hot[p]` is one more, for all traffic of the partition."""

    def __init__(self, count: int, partitions: int) -> None:
        self.count = count
        self.homes: list[list[str]] = [[] for _ in range(partitions)]
        for number in range(count):
            account = f"acct-{number:08d}"
            self.homes[home_partition(account, partitions)].append(account)
        self.hot = [self._hot(partition, partitions) for partition in range(partitions)]

    @staticmethod
    def _hot(wanted: int, partitions: int) -> str:
        number = 0
        while home_partition(f"hot-{number}", partitions) != wanted:
            number += 1
        return f"hot-{number}"

    def at_home(self, partition: int) -> Iterator[tuple[str, int]]:
        """(account, opening credit in micro-units) of all in a partition, the busy one last."""
        for account in self.homes[partition]:
            yield account, CREDIT_MICROS
        yield self.hot[partition], HOT_CREDIT_MICROS


def plan_of(account: str) -> str:
    """Plans are dealt out in turn; the busy accounts all have the first."""
    return PLAN_NAMES[int(account[-2:]) % len(PLAN_NAMES)] if account.startswith("acct-") else PLAN_NAMES[0]


def opening(partition: int, account: str, credit_micros: int, timeline: str, now_ms: int) -> Line:
    """The record of `ledger.entries` that opens an account, as the relay writes it."""
    plan = plan_of(account)
    entry = AccountOpened(
        account=account,
        ledger_seq=1,
        timeline=timeline,
        currency=PLANS[plan],
        plan=plan,
        home_partition=partition,
        usage_position=0,
        credit_micros=credit_micros,
        credit_limit_micros=0,
        recharge_below_micros=RECHARGE_BELOW_MICROS,
        status="open",
    )
    return Line(account.encode(), encode_entry(entry, now_ms))


def application(account: str, credit_micros: int) -> NewAccount:
    """The same opening, as the ledger takes it."""
    plan = plan_of(account)
    return NewAccount(
        account,
        PLANS[plan],
        plan,
        credit_micros,
        recharge_below_micros=RECHARGE_BELOW_MICROS,
        recharge_by_micros=RECHARGE_BY_MICROS,
        payment_method="pm_card_visa",
    )


def assignment(partition: int, account: str, timeline: str, now_ms: int) -> Line:
    """The record of `billing.tariffs` that gives the account its plan."""
    message = PlanAssignment(
        timeline=timeline,
        account=account,
        version=1,
        plan=plan_of(account),
        effective_ms=0,
        home_partition=partition,
        usage_position=0,
    )
    return Line(catalogue_key(message), encode_catalogue(message, now_ms))


def heartbeat(timeline: str, now_ms: int) -> Line:
    """The relay's word that the catalogue is complete up to now; consumers price ten minutes beyond it."""
    message = Heartbeat(timeline=timeline, as_of_ms=now_ms)
    return Line(catalogue_key(message), encode_catalogue(message, now_ms))


def tariffs(timeline: str) -> list[TariffVersion]:
    """The demo's tariffs, one of each plan."""
    found = []
    for plan, currency in PLANS.items():
        rates = parse_tariff(tariff_file(plan).read_bytes())
        assert not isinstance(rates, TariffRefused)  # committed files, read by tests too
        found.append(
            TariffVersion(timeline=timeline, plan=plan, version=1, currency=currency, effective_ms=0, rates=rates)
        )
    return found
