"""A statement as text, CSV and JSON. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from billing.ledger.statement import SECTIONS, EntryLine, Line, Statement, UsageLine
from billing.money import format_micros

_UNITS = {"call": "seconds", "sms": "segments", "mms": "segments", "item": "units"}
_SESSIONS = {"calls": ("call", "calls"), "messages": ("message", "messages"), "items": ("purchase", "purchases")}
_STATES = {
    "future": "not begun",
    "open": "so far; the month is open",
    "closing": "the last entries may still be on their way; final ten minutes after its end",
    "final": "final",
}
_CSV_COLUMNS = (
    *("section", "booked_at", "kind", "direction", "destination", "description", "sessions", "quantity", "unit"),
    *("amount", "currency", "entry", "about", "corrects", "author", "reason"),
)


def as_text(statement: Statement) -> Iterator[str]:
    """Lines for people; amounts are aligned at the decimal point."""
    rows = list(_rows(statement))
    money = _Money(statement.currency, [amount for _, amount, _ in rows if amount is not None])
    width = max(len(text) for text, amount, _ in rows if amount is not None)
    month = f"{statement.month.name} (UTC, by booking time)"
    yield f"Statement of account {statement.account}, {month}, in {statement.currency}"
    yield _STATES[statement.state][0].upper() + _STATES[statement.state][1:]
    for text, amount, note in rows:
        yield text if amount is None else f"{text:<{width}}  {money.show(amount)}  {note}".rstrip()


def _rows(statement: Statement) -> Iterator[tuple[str, int | None, str]]:
    """(text, amount, what follows it); a heading has no amount."""
    yield "", None, ""
    yield "Opening balance", statement.opening_micros, ""
    for name in SECTIONS:
        lines = statement.section(name)
        if lines:
            yield "", None, ""
            yield name.capitalize(), None, ""
            yield from ((f"  {text}", line.amount_micros, note) for line, text, note in _described(lines))
            if len(lines) > 1:
                yield "  total", sum(line.amount_micros for line in lines), ""
    yield "", None, ""
    yield "Closing balance", statement.closing_micros, ""


def _described(lines: list[Line]) -> Iterator[tuple[Line, str, str]]:
    for archived in (line for line in lines if isinstance(line, UsageLine) and line.section == "archived"):
        yield archived, archived.description, ""
    usage = [line for line in lines if isinstance(line, UsageLine) and line.section != "archived"]
    cells = [_usage_cells(line) for line in usage]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line, (what, destination, description, sessions, quantity, unit) in zip(usage, cells, strict=True):
        text = "  ".join(
            [
                *(f"{what:<{widths[0]}}", f"{destination:<{widths[1]}}", f"{description:<{widths[2]}}"),
                f"{sessions:>{widths[3]}}",
                f"{quantity:>{widths[4]}} {unit}",
            ]
        )
        yield line, text.rstrip(), ""
    for entry in (line for line in lines if isinstance(line, EntryLine)):
        yield entry, f"{entry.booked_at:%Y-%m-%d %H:%M:%S}  {entry.kind}", _note(entry)


def _usage_cells(line: UsageLine) -> tuple[str, ...]:
    what = f"{line.kind} {line.direction}".rstrip()
    number = line.section != "items" and line.destination[:1].isdigit()
    destination = f"+{line.destination}" if number else line.destination
    times = f"{line.sessions:,} {_SESSIONS[line.section][line.sessions != 1]}"
    unit = _UNITS[line.kind] if line.quantity != 1 else _UNITS[line.kind].removesuffix("s")
    return what, destination, line.description, times, f"{line.quantity:,}", unit


def _note(entry: EntryLine) -> str:
    corrects = "" if entry.corrects is None else f"corrects entry {entry.corrects}"
    said = ", ".join(part for part in (entry.about, corrects) if part)
    reason = f"{said}: {entry.reason}" if said and entry.reason else said or entry.reason
    return f"{reason} (entry {entry.entry}, by {entry.author})".lstrip()


class _Money:
    """Amounts of one currency in a column: as many decimals as the longest needs at the right, a sign on all but 0."""

    def __init__(self, currency: str, amounts: list[int]) -> None:
        self._currency = currency
        shown = [self._sign(amount) for amount in amounts]
        self._left = max(len(text.partition(".")[0]) for text in shown)
        self._right = max(len(text) - len(text.partition(".")[0]) for text in shown)

    def show(self, amount_micros: int) -> str:
        whole, point, decimals = self._sign(amount_micros).partition(".")
        return f"{whole:>{self._left}}{point}{decimals}".ljust(self._left + self._right)

    def _sign(self, amount_micros: int) -> str:
        return format_micros(amount_micros, self._currency)


def as_csv(statement: Statement) -> str:
    """One row per line of the statement, opening and closing included; amounts are exact decimals."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _csv_rows(statement):
        writer.writerow({"currency": statement.currency, **row})
    return out.getvalue()


def _csv_rows(statement: Statement) -> Iterator[dict[str, Any]]:
    def amount(amount_micros: int) -> str:
        return format_micros(amount_micros, statement.currency)

    yield {"section": "opening", "amount": amount(statement.opening_micros)}
    for name in SECTIONS:
        for line in statement.section(name):
            fields = _fields(line)
            unit = {"unit": _UNITS.get(line.kind)} if isinstance(line, UsageLine) else {}
            yield {**fields, **unit, "amount": amount(line.amount_micros)}
    yield {"section": "closing", "amount": amount(statement.closing_micros)}


def as_json(statement: Statement) -> dict[str, Any]:
    """Amounts in micro-units; a key per section."""
    sections: dict[str, Any] = {
        name: [
            {
                **{key: value for key, value in _fields(line).items() if key != "section"},
                "amount_micros": line.amount_micros,
            }
            for line in statement.section(name)
        ]
        for name in SECTIONS
    }
    return {
        "account": statement.account,
        "currency": statement.currency,
        "month": statement.month.name,
        "from": statement.month.begin,
        "to": statement.month.end,
        "state": statement.state,
        "opening_micros": statement.opening_micros,
        **sections,
        "closing_micros": statement.closing_micros,
    }


def _fields(line: Line) -> dict[str, Any]:
    if isinstance(line, UsageLine):
        return {
            "section": line.section,
            "kind": line.kind,
            "direction": line.direction,
            "destination": line.destination,
            "description": line.description,
            "sessions": line.sessions,
            "quantity": line.quantity,
        }
    return {
        "section": line.section,
        "booked_at": line.booked_at.isoformat(),
        "kind": line.kind,
        "entry": line.entry,
        "about": line.about,
        "corrects": line.corrects,
        "author": line.author,
        "reason": line.reason,
    }
