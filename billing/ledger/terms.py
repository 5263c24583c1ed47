"""What may be asked about accounts, and the answers. Pure: validation needs no database."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import msgspec

from billing.money import LARGEST, MAX_MICROS, format_micros, is_currency
from schemas.common import ID_PATTERN, AccountStatus

_ID = re.compile(ID_PATTERN.removesuffix("$"))
_CARD_NUMBER = re.compile(r"(?:[0-9][ -]?){12,19}")
MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to open. Amounts in micro-units; `recharge_below_micros` None: never recharged. `customer` and
    `payment_method` are the gateway's tokens."""

    id: str
    currency: str
    plan: str
    credit_micros: int = 0
    credit_limit_micros: int = 0
    recharge_below_micros: int | None = None
    recharge_by_micros: int | None = None
    customer: str | None = None
    payment_method: str | None = None
    daily_cap_micros: int | None = None

    def as_json(self) -> str:
        """The input as it is kept with the opening entry, so that a repeat can be compared with it."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return msgspec.json.encode({name: value for name, value in given.items() if value is not None}).decode()


class Keep:
    """The type of KEEP: a field that is left as it is."""


KEEP = Keep()


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change about an account; None clears a field that may be empty. `effective_ms` is when a new plan
    begins to price (ms since 1970 UTC); None: as soon as the lead allows."""

    plan: str | Keep = KEEP
    effective_ms: int | None = None
    credit_limit_micros: int | Keep = KEEP
    recharge_below_micros: int | Keep | None = KEEP
    recharge_by_micros: int | Keep | None = KEEP
    customer: str | Keep | None = KEEP
    payment_method: str | Keep | None = KEEP
    daily_cap_micros: int | Keep | None = KEEP
    status: AccountStatus | Keep = KEEP

    def given(self) -> dict[str, Any]:
        """The fields to change, without `effective_ms`."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "effective_ms"}
        return {name: value for name, value in values.items() if not isinstance(value, Keep)}


# --- answers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """Usage of the home partition counts from `usage_position` on."""

    account: str
    home_partition: int
    usage_position: int
    ledger_seq: int = 1


@dataclass(frozen=True, slots=True)
class AlreadyOpen:
    """The same account had been opened with the same input: nothing was done, and that is fine."""

    account: str
    home_partition: int
    usage_position: int
    ledger_seq: int = 1


@dataclass(frozen=True, slots=True)
class Conflict:
    """The account (or the key) exists with other input: `field` first differs."""

    account: str
    field: str
    stored: Any
    given: Any


@dataclass(frozen=True, slots=True)
class UnknownPlan:
    account: str
    plan: str


@dataclass(frozen=True, slots=True)
class CurrencyMismatch:
    account: str
    plan: str
    plan_currency: str
    account_currency: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """`field` of the input is malformed or out of bounds (R10, S13)."""

    account: str
    field: str
    problem: str


@dataclass(frozen=True, slots=True)
class NoSuchAccount:
    account: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed account's terms do not change any more."""

    account: str


OpenRefusal: TypeAlias = Conflict | UnknownPlan | CurrencyMismatch | Invalid
OpenAnswer: TypeAlias = Opened | AlreadyOpen | OpenRefusal


@dataclass(frozen=True, slots=True)
class Imported:
    """`opened` are new, `already_open` were identical repeats."""

    opened: int
    already_open: int


@dataclass(frozen=True, slots=True)
class ImportRefused:
    """Nothing was imported: the input's row `row` (from 1) is the first that cannot be."""

    row: int
    refusal: OpenRefusal


@dataclass(frozen=True, slots=True)
class Changed:
    """`plan_effective_ms` is set when a new plan was assigned."""

    account: str
    ledger_seq: int
    plan_effective_ms: int | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Everything was as asked already."""

    account: str
    ledger_seq: int


SetAnswer: TypeAlias = Changed | Unchanged | NoSuchAccount | Closed | UnknownPlan | CurrencyMismatch | Invalid


# --- validation, each check naming the field --------------------------------------------------------------


def problem_of(new: NewAccount) -> Invalid | None:
    """The first field that is wrong, in the order of the fields, or None."""
    if not is_id(new.id):
        return Invalid(str(new.id)[:64], "id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    if not isinstance(new.currency, str) or not is_currency(new.currency):
        return Invalid(new.id, "currency", "is not an ISO 4217 currency")
    values = {f.name: getattr(new, f.name) for f in fields(new) if f.name not in ("id", "currency")}
    return _first_problem(new.id, values)


def problem_of_changes(account: str, changes: Changes) -> Invalid | None:
    """The first field that is wrong, or None."""
    if not is_id(account):
        return Invalid(str(account)[:64], "id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    return _first_problem(account, changes.given())


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_amount(value: object, low: int = -MAX_MICROS) -> bool:
    """A whole number of micro-units from `low` to 2^53 - 1; True and 1.0 are none."""
    return type(value) is int and low <= value <= MAX_MICROS


def text_problem(value: object, *, empty: bool = True) -> str | None:
    """Why `value` is no text that we keep, or None."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        return f"must be text of at most {MAX_TEXT} printable characters"
    return None if empty or value.strip() else "must not be empty"


def _first_problem(account: str, values: dict[str, Any]) -> Invalid | None:
    for field, value in values.items():
        problem = _field_problem(field, value)
        if problem is not None:
            return Invalid(account, field, problem)
    return None


_LOWEST: dict[str, int] = {
    "credit_micros": 0,
    "credit_limit_micros": 0,
    "recharge_below_micros": -MAX_MICROS,
    "recharge_by_micros": 1,
    "daily_cap_micros": 0,
}
_OPTIONAL = frozenset({"recharge_below_micros", "recharge_by_micros", "customer", "payment_method", "daily_cap_micros"})
_STATUSES: tuple[Literal["open", "suspended", "closed"], ...] = ("open", "suspended", "closed")


def _field_problem(field: str, value: Any) -> str | None:
    if value is None and field in _OPTIONAL:
        return None
    if field in _LOWEST:
        low = _LOWEST[field]
        return None if is_amount(value, low) else f"must be an amount from {format_micros(low)} to {LARGEST}"
    if field == "plan":
        return None if is_id(value) else "must be 1 to 64 of A-Z a-z 0-9 . _ : -"
    if field == "status":
        return None if value in _STATUSES else f"must be one of {', '.join(_STATUSES)}"
    if isinstance(value, str) and _CARD_NUMBER.fullmatch(value):
        return "looks like a card number; only the gateway's tokens are kept (R12)"
    return text_problem(value, empty=False)
