"""Dead letters, for people and for scripts. Bytes are shown so that no terminal takes them for anything but text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from billing.deadletters.letters import Action, Letter, Place
from billing.deadletters.prices import Suspended
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.money import format_micros
from billing.stream.record import Record
from billing.usage.worth import Outlook, Worth

SHOWN_CHARACTERS = 4000
_PLACE = re.compile(rf"(?:({re.escape(USAGE_TOPIC)}|{re.escape(SIGNALS_TOPIC)})[/:])?(\d{{1,9}})[/:](\d{{1,18}})")


class PlaceType(click.ParamType[Place]):
    """PARTITION/OFFSET of usage.events, or TOPIC/PARTITION/OFFSET."""

    name = "letter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        if isinstance(value, Place):
            return value
        found = _PLACE.fullmatch(str(value))
        if found is None:
            self.fail(
                f"{value!r} is not PARTITION/OFFSET or TOPIC/PARTITION/OFFSET, as `dlq list` shows them", param, ctx
            )
        return Place(found[1] or USAGE_TOPIC, int(found[2]), int(found[3]))


PLACE = PlaceType()


def row_of_table(letter: Letter, worth: Worth, settled: Place | None) -> dict[str, Any]:
    """One line of a table, without the bytes."""
    return {
        "letter": str(letter.place),
        "reason": letter.reason.value,
        "account": letter.account,
        "state": letter.state,
        "logged": f"{_moment(letter.record.timestamp):%Y-%m-%d %H:%M:%S}",
        "held up": money(worth, settled),
        "detail": letter.detail,
    }


def money(worth: Worth, settled: Place | None) -> str:
    """What a letter holds up, in words."""
    if worth.amount_micros is None:
        return "?"
    if worth.currency is None or settled is not None:
        return "nothing"
    return f"{format_micros(worth.amount_micros, worth.currency)} {worth.currency}"


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything about one letter: what it holds up, where its session was settled, what a replay would become, what
    was done with it, the letter that it is a replay of."""

    letter: Letter
    worth: Worth
    settled: Place | None
    outlook: Outlook
    done: Sequence[Action]
    origin: Place | None


def letter_fields(shown: Shown) -> dict[str, Any]:
    """For scripts."""
    letter, worth, settled, outlook = shown.letter, shown.worth, shown.settled, shown.outlook
    record = letter.record
    return {
        **msgspec.to_builtins(letter.row()),
        "stored_at": letter.stored_at,
        "attributes": attributes(record),
        "key_text": printable(record.key),
        "value_text": printable(record.value),
        "would_cost_micros": worth.amount_micros,
        "currency": worth.currency,
        "unpriced_because": worth.why or None,
        "session": None if worth.session is None else {"kind": worth.kind, "id": worth.session},
        "settled_at": None if settled is None else str(settled),
        "if_replayed": {
            "partition": outlook.partition,
            "refused": outlook.reason and outlook.reason.value,
            "detail": outlook.detail or None,
        },
        "replay_of": None if shown.origin is None else str(shown.origin),
        "became": None if letter.became is None else str(letter.became),
        "actions": [
            {
                "kind": action.kind,
                "by": action.author,
                "reason": action.reason,
                "at": action.acted_at,
                "partition": action.to_partition,
                "offset": action.to_offset,
            }
            for action in shown.done
        ],
    }


def letter_lines(shown: Shown) -> Iterator[str]:
    """For people."""
    letter, worth, settled, outlook = shown.letter, shown.worth, shown.settled, shown.outlook
    record = letter.record
    yield f"{letter.place}  {letter.reason.value}: {letter.detail}"
    yield f"logged    {_moment(record.timestamp):%Y-%m-%d %H:%M:%S} UTC"
    yield f"stored    {letter.stored_at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"account   {letter.account or '-'}"
    yield f"state     {letter.state}{f', as {letter.became}' if letter.became else ''}"
    if shown.origin is not None:
        yield f"replay of {shown.origin}"
    yield f"held up   {money(worth, settled)}{f' ({worth.why})' if worth.why else ''}"
    if settled is not None:
        yield f"settled   its session was settled by the record at {settled}"
    if outlook.reason is None:
        yield f"replayed  it would be taken in, by partition {outlook.partition}"
    else:
        yield f"replayed  it would be refused again: {outlook.reason.value}, {outlook.detail}"
    for action in shown.done:
        to = "" if action.to_offset is None else f" as {action.to_partition}/{action.to_offset}"
        yield f"{action.acted_at:%Y-%m-%d %H:%M:%S}  {action.kind}{to} by {action.author}: {action.reason}"
    for name, value in attributes(record).items():
        yield f"  {name}: {value}"
    for header, content in record.headers:
        yield f"header {printable(header.encode(errors='backslashreplace'))}: {printable(content)}"
    yield f"key    {printable(record.key)}"
    yield f"value  {printable(record.value)}"


def attributes(record: Record) -> dict[str, str]:
    """The CloudEvents attributes that can be read, whichever mode they are in; none where there are none."""
    found: dict[str, str] = {}
    try:
        members = msgspec.json.decode(record.value or b"", type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        members = {}
    if "specversion" in members:
        found |= {name: printable(bytes(raw)) or "" for name, raw in members.items()}
    for name, value in record.headers:
        if name.lower().startswith("ce_"):
            found[name.lower()[3:]] = printable(value) or ""
    return {(printable(name.encode(errors="backslashreplace")) or ""): value for name, value in found.items()}


def printable(part: bytes | None) -> str | None:
    """Bytes as text of at most SHOWN_CHARACTERS characters; what is not printable, or not UTF-8, is escaped."""
    if part is None:
        return None
    text = part[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:SHOWN_CHARACTERS])
    left = len(part) - len(text[:SHOWN_CHARACTERS].encode("utf-8", "backslashreplace"))
    return f"{shown}… ({len(part):,} bytes)" if len(text) > SHOWN_CHARACTERS or left > 4 * SHOWN_CHARACTERS else shown


def suspended_rows(by_reason: dict[str, Suspended], *, as_json: bool) -> list[dict[str, Any]]:
    """One row per reason."""
    rows = []
    for reason, found in sorted(by_reason.items()):
        if as_json:
            money_rows = [{"currency": c, "amount_micros": micros} for c, micros in sorted(found.micros.items())]
            unpriced = [{"why": why, "letters": count} for why, count in sorted(found.unpriced.items())]
            rows.append(
                {
                    "reason": reason,
                    "letters": found.letters,
                    "oldest_at": found.oldest_at,
                    "suspended": money_rows,
                    "unpriced": unpriced,
                }
            )
            continue
        amounts = ", ".join(f"{format_micros(micros, c)} {c}" for c, micros in sorted(found.micros.items()))
        rows.append(
            {
                "reason": reason,
                "letters": found.letters,
                "oldest": None if found.oldest_at is None else f"{found.oldest_at:%Y-%m-%d %H:%M:%S}",
                "held up": amounts or ("?" if found.unpriced else "nothing"),
                "cannot be priced": found.unpriced_letters,
            }
        )
    return rows


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)
