"""When what was seen of an account is a finding, and when only a reason to look again. Pure.

One look proves nothing: a difference counts when a closer look (the store first, then the ledger as it was at the
store's position) sees it as well; what is only behind, missing or unknown is given time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing.reconcile.compare import Behind, Comparison, Different, Equal, Missing, Unknown

LOST_S = 30.0  # behind or missing for as long, nothing on its way: it was lost
OVERFLOW_S = 10.0  # unknown for as long because of it: deriving was tried and does not help
FIRST_AGAIN_S = 0.3
LONGEST_AGAIN_S = 15.0
CLOSE_LOOKS = 2  # closer looks that must agree


class Judgement(StrEnum):
    """What to do about an account."""

    AGREES = "agrees"
    LOOK_AGAIN = "look_again"
    DIFFERS = "differs"  # the two books disagree at the same place
    LOST_IN_STORE = "lost_in_store"  # the store lacks the account, or entries of it, and none is on its way
    UNREADABLE = "unreadable"  # the store's record of it, or a hold of it, was changed by another hand
    OVERFLOWS = "overflows"  # its balance, or what is held, is beyond what the store can hold
    LEDGER_BEHIND = "ledger_behind"  # the store has seen an account, or entries, that the ledger does not have


@dataclass(slots=True)
class Watch:
    """An account that did not agree: what was seen last, since when (monotonic seconds), how many closer looks in a row
    saw the same kind of thing, and when to look again."""

    partition: int
    what: str
    since_s: float
    close_looks: int
    again_s: float
    pause_s: float = FIRST_AGAIN_S


def kind_of(comparison: Comparison) -> str:
    """Comparisons of the same kind are the same trouble."""
    match comparison:
        case Behind(book, what):
            return f"{book} behind with {what}"
        case Missing(book):
            return f"missing in {book}"
        case Unknown(reason):
            return f"unknown: {reason}"
        case _:
            return type(comparison).__name__.lower()


def judge(
    watch: Watch | None, partition: int, comparison: Comparison, now_s: float, *, closely: bool
) -> tuple[Judgement, Watch | None]:
    """What to do, and what to remember until the next look (None: nothing)."""
    if isinstance(comparison, Equal):
        return Judgement.AGREES, None
    kind = kind_of(comparison)
    if watch is None or watch.what != kind:
        watch = Watch(partition, kind, now_s, 0, now_s + FIRST_AGAIN_S)
    else:
        watch.pause_s = min(watch.pause_s * 2, LONGEST_AGAIN_S)
        watch.again_s = now_s + watch.pause_s
    watch.close_looks += closely
    return _verdict(watch, comparison, now_s), watch


def _verdict(watch: Watch, comparison: Comparison, now_s: float) -> Judgement:
    match comparison:
        case Different() if watch.close_looks >= CLOSE_LOOKS:
            return Judgement.DIFFERS
        # the ledger is read after the store: it has all that was ever published, unless it forgot
        case Behind("ledger", "entries") | Missing("ledger") if watch.close_looks >= CLOSE_LOOKS:
            return Judgement.LEDGER_BEHIND
        case Behind("store", "entries") | Missing("store") if now_s - watch.since_s >= LOST_S and watch.close_looks:
            return Judgement.LOST_IN_STORE
        case Unknown("unreadable") if watch.close_looks >= CLOSE_LOOKS:
            return Judgement.UNREADABLE
        case Unknown("overflow") if watch.close_looks >= CLOSE_LOOKS and now_s - watch.since_s >= OVERFLOW_S:
            return Judgement.OVERFLOWS
        case Unknown() | _:
            return Judgement.LOOK_AGAIN
