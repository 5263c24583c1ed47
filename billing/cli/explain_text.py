"""An explained balance as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from billing.balance.balances import Known, NoSuchAccount, OpenHold, Unknown
from billing.cli.explain_verdict import count, verdict
from billing.cli.tables import table
from billing.money import format_micros
from billing.reconcile.compare import Comparison
from billing.reconcile.explain import Away, Entry, LedgerAnswer, LedgerView, StoreView, UsageTotal

_UNITS = {"call": "seconds", "sms": "segments", "mms": "segments", "item": "units", "archived": "in files"}


def as_text(account: str, ledger: LedgerAnswer, store: StoreView, comparison: Comparison | None) -> Iterator[str]:
    """Lines for people: the answer first, then each book."""
    yield from _head(account, ledger, store)
    yield ""
    yield verdict(ledger, store, comparison)
    if isinstance(ledger, LedgerView):
        yield from _ledger(ledger)
    else:
        yield ""
        yield "Ledger (PostgreSQL)"
        yield f"  away: {ledger.why}" if isinstance(ledger, Away) else "  has no such account"
    yield from _store(store)


def _head(account: str, ledger: LedgerAnswer, store: StoreView) -> Iterator[str]:
    if isinstance(ledger, LedgerView):
        found = ledger.account
        where = f"plan {found.plan}, partition {found.home_partition}"
        yield f"Account {account}: {found.status}, {found.currency}, {where}"
        if ledger.frozen_reason is not None:
            yield f"Money movement is frozen: {ledger.frozen_reason}"
        if ledger.halted is not None:
            yield f"The ledger has halted its partition: {ledger.halted}"
    elif isinstance(store.balance, Known):
        yield f"Account {account}: {store.balance.status}, {store.balance.currency}"
    else:
        yield f"Account {account}"


def _ledger(view: LedgerView) -> Iterator[str]:
    account = view.account

    def money(amount_micros: int) -> str:
        return format_micros(amount_micros, account.currency)

    yield ""
    yield f"Ledger (PostgreSQL), read up to offset {view.usage_position:,} of the partition"
    sessions = sum(total.sessions for total in view.usage)
    yield from _sums(
        [
            ("credit", money(account.credit_micros), count(account.ledger_seq, "entry", "entries")),
            ("used", money(account.used_micros), count(sessions, "settled session", "settled sessions")),
            ("balance", money(account.balance_micros), "credit - used"),
        ]
    )
    yield ""
    yield "  Entries, newest first"
    rows = [_entry_cells(entry, money) for entry in view.entries]
    if view.earlier_entries:
        earlier = count(view.earlier_entries, "earlier entry", "earlier entries")
        rows.append(("", "", earlier, money(view.earlier_micros), "(--limit shows more)"))
    yield from table(rows, right=(0, 3), indent="    ")
    yield "  Settled usage (`billing usage` lists it)" if view.usage else "  No settled usage"
    usage = [_usage_cells(total, money(total.amount_micros)) for total in view.usage]
    yield from table(usage, right=(1, 2, 3), indent="    ")


def _usage_cells(total: UsageTotal, amount: str) -> tuple[str, ...]:
    unit = _UNITS.get(total.kind)
    quantity = f"{total.quantity:,} {unit}" if unit else ""
    return total.kind, count(total.sessions, "session", "sessions"), quantity, amount


def _entry_cells(entry: Entry, money: Any) -> tuple[str, ...]:
    link = f"corrects entry {entry.corrects}" if entry.corrects is not None else ""
    said = ": ".join(part for part in (", ".join(p for p in (entry.about, link) if p), entry.reason) if part)
    amount = money(entry.amount_micros) if entry.amount_micros else ""
    by = f"by {entry.author}"
    return (
        f"#{entry.ledger_seq}",
        f"{entry.booked_at:%Y-%m-%d %H:%M:%S}",
        entry.kind,
        amount,
        f"{said} ({by})" if said else by,
    )


def _store(store: StoreView) -> Iterator[str]:
    balance = store.balance
    yield ""
    if isinstance(balance, Unknown):
        yield "Redis"
        yield f"  unknown: {balance.reason}{': ' + balance.detail if balance.detail else ''}"
        return
    if isinstance(balance, NoSuchAccount):
        yield "Redis"
        yield "  does not show the account"
        return

    def money(amount_micros: int) -> str:
        return format_micros(amount_micros, balance.currency)

    read = f"offset {balance.usage_position:,} of the partition and entry #{balance.ledger_seq} of the account"
    yield f"Redis (incarnation {balance.incarnation}), read up to {read}"
    holds = store.holds if isinstance(store.holds, tuple) else ()
    rows = [
        ("credit", money(balance.credit_micros), ""),
        ("used", money(balance.used_micros), ""),
        ("held", money(balance.held_micros), count(len(holds), "hold", "holds") if holds else ""),
        ("available", money(balance.available_micros), "credit - used - held"),
    ]
    if balance.credit_limit_micros:
        rows.append(("credit limit", money(balance.credit_limit_micros), "may be used on top of what is available"))
    if balance.excluded_micros:
        note = "debits other than usage: not counted towards recharge until acknowledged"
        rows.append(("excluded", money(balance.excluded_micros), note))
    if balance.recharge_below_micros is not None:
        rows.append(
            ("recharge level", money(balance.level_micros), f"due below {money(balance.recharge_below_micros)}")
        )
    yield from _sums(rows)
    if isinstance(store.holds, Unknown):
        yield f"  Holds could not be read: {store.holds.reason}"
    elif holds:
        yield "  Holds"
        yield from table(
            [_hold_cells(hold, money(hold.amount_micros), balance.log_time_ms) for hold in holds],
            right=(2, 3),
            indent="    ",
        )


def _hold_cells(hold: OpenHold, amount: str, log_time_ms: int) -> tuple[str, ...]:
    elapsed = f"{hold.elapsed:,} s elapsed" if hold.elapsed else ""
    left_s = (hold.lease_end_ms - log_time_ms) // 1000
    return (
        hold.kind,
        hold.session,
        amount,
        elapsed,
        f"lease ends {_moment(hold.lease_end_ms)} (in {left_s:,} s of log time)",
    )


def _sums(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    return table(rows, right=(1,), indent="    ")


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%H:%M:%S}"
