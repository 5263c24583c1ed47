"""The account import file."""

from __future__ import annotations

import csv

from billing.ledger.terms import NewAccount
from billing.money import AmountRefused, parse_micros

COLUMNS = (
    *("id", "currency", "plan", "credit", "credit_limit", "recharge_below", "recharge_by"),
    *("customer", "payment_method", "daily_cap"),
)
_REQUIRED = ("id", "currency", "plan")
_AMOUNTS = {
    "credit": "credit_micros",
    "credit_limit": "credit_limit_micros",
    "recharge_below": "recharge_below_micros",
    "recharge_by": "recharge_by_micros",
    "daily_cap": "daily_cap_micros",
}


def read_accounts(path: str) -> list[NewAccount] | str:
    """The accounts of a UTF-8 CSV file with a header, or one line on what is wrong with it, and where. An empty field
    takes its default."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            problem = _header_problem(header)
            if problem:
                return problem
            accounts = []
            for number, row in enumerate(rows, start=2):
                if not row:
                    continue
                if len(row) != len(header):
                    return f"line {number}: {len(row)} fields, the header has {len(header)}"
                account = _account(dict(zip(header, row, strict=True)))
                if isinstance(account, str):
                    return f"line {number}: {account}"
                accounts.append(account)
    except (UnicodeDecodeError, csv.Error) as error:
        return f"is not UTF-8 CSV: {error}"
    return accounts


def _header_problem(header: list[str]) -> str | None:
    unknown = [name for name in header if name not in COLUMNS]
    missing = [name for name in _REQUIRED if name not in header]
    if unknown:
        return f"line 1: unknown column {unknown[0]!r}; the columns are {','.join(COLUMNS)}"
    if missing:
        return f"line 1: column {missing[0]!r} is missing"
    return "line 1: a column comes twice" if len(set(header)) != len(header) else None


def _account(row: dict[str, str]) -> NewAccount | str:
    amounts = {}
    for column, field in _AMOUNTS.items():
        text = row.get(column, "").strip()
        if not text:
            continue
        micros = parse_micros(text)
        if isinstance(micros, AmountRefused):
            return f"column {column}: {micros}"
        amounts[field] = micros
    return NewAccount(
        id=row["id"],
        currency=row["currency"],
        plan=row["plan"],
        customer=row.get("customer") or None,
        payment_method=row.get("payment_method") or None,
        **amounts,
    )
