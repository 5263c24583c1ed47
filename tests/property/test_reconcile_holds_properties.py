"""Holds worked out from the log alone equal those of the balance store's model, which saw every record."""

from __future__ import annotations

from typing import Any, NamedTuple

from balance_harness import START_MS, TIMELINE, TOPICS, charge, hold, opened
from hypothesis import given
from hypothesis import strategies as st

from billing.balance.model import PartitionModel
from billing.reconcile.holds import OpenHolds
from billing.stream.record import Position
from billing.stream.sink import Applied, Batch, Claimed
from billing.usage.ops import Charge, Hold, session_key

DAY_MS = 86_400_000
SESSIONS = [(account, session) for account in ("a", "b") for session in ("s1", "s2")]


class Step(NamedTuple):
    """One record: how long after the one before it, and what it says."""

    after_ms: int
    what: str  # hold, charge, nothing
    session: tuple[str, str]
    elapsed: int
    amount: int


steps = st.builds(
    Step,
    after_ms=st.sampled_from([0, 1_000, 60_000, 180_000, 200_000]),
    what=st.sampled_from(["hold", "hold", "hold", "charge", "nothing"]),
    session=st.sampled_from(SESSIONS),
    elapsed=st.integers(0, 3),
    amount=st.integers(0, 100),
)


def _op(step: Step, offset: int, log_time_ms: int) -> Hold | Charge | None:
    account, session = step.session
    match step.what:
        case "hold":
            return hold(offset, account, session, step.amount, elapsed=step.elapsed, log_time_ms=log_time_ms)
        case "charge":
            return charge(offset, account, session, step.amount, log_time_ms=log_time_ms)
        case _:
            return None


@given(st.lists(steps, max_size=40))
def test_holds_from_the_log_are_those_of_the_model(made: list[Step]) -> None:
    """The model ends leases whenever log time reaches them, as a store does whose owner is always at the log's end."""
    start = Position(0, "")
    model = PartitionModel(TOPICS, TIMELINE, DAY_MS, {TOPICS.usage: start, TOPICS.entries: start}, START_MS)
    claimed = model.claim("n")
    assert isinstance(claimed, Claimed)
    owner = claimed.owner
    accounts = [opened("a"), opened("b")]
    assert isinstance(model.apply(Batch(owner, TOPICS.entries, 3, 0, 2, "1:", START_MS, accounts)), Applied)
    holds, settled, log_time_ms = OpenHolds(), set[str](), START_MS
    for offset, step in enumerate(made):
        log_time_ms += step.after_ms
        op = _op(step, offset, log_time_ms)
        ops: list[Any] = [] if op is None else [op]
        batch = Batch(owner, TOPICS.usage, 3, offset, offset + 1, f"{offset}:", log_time_ms, ops)
        assert isinstance(model.apply(batch), Applied)
        assert isinstance(model.expire(owner, 1_000), list)
        holds.take(op, log_time_ms)
        if isinstance(op, Charge):
            settled.add(session_key(op.kind, op.account, op.session))
    found = {session_key(*session): hold for session, hold in holds.open_at(log_time_ms).items()}
    assert {key: hold for key, hold in found.items() if key not in settled} == model.holds
