"""From one batch's operations to rows: what to settle, what to store, what is a duplicate. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec

from billing.usage.ops import Charge, DeadLetter, Hold, Stray, UsageOp
from billing.usage.subject import subject_of

SessionKey: TypeAlias = tuple[str, str, str]
"""(account, kind, session): the identity of a session, whatever the event ids say."""


class Completion(NamedTuple):
    """What a completion says, without what a repeat may well change (event id, source, offsets)."""

    amount_micros: int
    price_time_ms: int
    tariff_kind: str
    direction: str
    destination: str
    origin: str
    quantity: int
    status: str
    matched: str

    def agrees_with(self, other: Completion) -> bool:
        """Whether a repeat says the same. The price time of an item or of something that cost nothing comes from the
        event's own `time`, which a repeat under another id may well renew."""
        own_time = self.tariff_kind == "item" or not self.matched
        return self == (other._replace(price_time_ms=self.price_time_ms) if own_time else other)


@dataclass(frozen=True, slots=True)
class Finding:
    """A completion that differs from the one that counts."""

    account: str
    kind: str
    session: str
    kept_offset: int
    refused_offset: int
    kept: Completion
    refused: Completion

    def detail(self) -> str:
        return msgspec.json.encode({"kept": self.kept._asdict(), "refused": self.refused._asdict()}).decode()


@dataclass(slots=True)
class Sorted:
    """A batch's operations by what happens to them. `charges` has one per session, the lowest offset's."""

    charges: dict[SessionKey, Charge] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    strays: list[Stray] = field(default_factory=list)
    equal_duplicates: int = 0
    findings: list[Finding] = field(default_factory=list)


def sort_operations(ops: Sequence[UsageOp]) -> Sorted:
    """Split a batch and remove its inner duplicates; holds are not post-flight's business. `ops` may come in any
    order: the lower offset wins."""
    result = Sorted()
    for op in ops:
        match op:
            case Charge():
                _add_charge(result, op)
            case DeadLetter():
                result.dead_letters.append(op)
            case Stray():
                result.strays.append(op)
            case Hold():
                pass
    return result


def _add_charge(result: Sorted, charge: Charge) -> None:
    key = (charge.account, charge.kind, charge.session)
    kept = result.charges.get(key)
    if kept is None:
        result.charges[key] = charge
        return
    kept, refused = (kept, charge) if kept.offset < charge.offset else (charge, kept)
    result.charges[key] = kept
    compare(result, refused, kept.offset, completion_of(kept))


def compare(result: Sorted, refused: Charge, kept_offset: int, kept: Completion) -> None:
    """Count `refused` as an equal duplicate, or add a finding."""
    said = completion_of(refused)
    if said.agrees_with(kept):
        result.equal_duplicates += 1
    else:
        result.findings.append(
            Finding(refused.account, refused.kind, refused.session, kept_offset, refused.offset, kept, said)
        )


def completion_of(charge: Charge) -> Completion:
    return Completion(
        charge.amount_micros,
        charge.price_time_ms,
        charge.tariff_kind,
        charge.direction,
        charge.destination,
        charge.origin,
        charge.quantity,
        charge.status,
        charge.matched,
    )


def dead_letter_row(topic: str, letter: DeadLetter) -> tuple[Any, ...]:
    """Parameters of `sink.add_dead_letter`; the bytes are kept as they came."""
    record = letter.record
    return (
        *(topic, record.partition, record.offset, record.timestamp),
        *(letter.reason.value, text(letter.detail), record.key, record.value),
        *(msgspec.json.encode([(name, value) for name, value in record.headers]), subject_of(record)),
    )


def text(value: str) -> str:
    """`value` as PostgreSQL can store it: U+0000, which JSON may carry and `text` may not, becomes U+FFFD."""
    return value.replace("\x00", "\ufffd") if "\x00" in value else value


def without_nul(ops: Sequence[UsageOp]) -> list[UsageOp]:
    """The same, with charges that PostgreSQL can store. The verdict lets no such charge through; should one come all
    the same, its partition must not stop."""
    return [_clean(op) if isinstance(op, Charge) else op for op in ops]


def _clean(charge: Charge) -> Charge:
    return msgspec.structs.replace(
        charge, origin=text(charge.origin), event_id=text(charge.event_id), event_source=text(charge.event_source)
    )
