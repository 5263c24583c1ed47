"""From records of `usage.events` to the operations of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from billing.stream.record import Record
from billing.stream.sink import Interpretation
from billing.usage.classify import NeedsHorizon, VerdictOf
from billing.usage.ops import DeadLetter, Stray

Op_co = TypeVar("Op_co", covariant=True)


class UsageInterpreter(Generic[Op_co]):
    """Classifies record by record, up to the first that needs a horizon which the catalogue has not reached.

    `boundary_ms`: a batch never spans two values of `record.timestamp // boundary_ms` (a dedupe generation).
    """

    def __init__(self, classifier: VerdictOf[Op_co], boundary_ms: int | None = None) -> None:
        self._classify = classifier.classify
        self._boundary_ms = boundary_ms

    def interpret(
        self, records: Sequence[Record], before: Record | None = None
    ) -> Interpretation[Op_co | DeadLetter | Stray]:
        """Operations of as many of `records`, from the first, as one batch may cover."""
        classify = self._classify
        ops: list[Op_co | DeadLetter | Stray] = []
        append = ops.append
        # of the record before: most records of a batch share both
        timestamp = None if before is None else before.timestamp
        generation = None if timestamp is None else self._generation(timestamp)
        for taken, record in enumerate(records):
            if record.timestamp != timestamp:
                timestamp = record.timestamp
                began, generation = generation, self._generation(timestamp)
                if began is not None and generation != began:
                    return Interpretation(ops, taken)
            verdict = classify(record)
            if type(verdict) is NeedsHorizon:
                return Interpretation(ops, taken, verdict.horizon_ms)
            if verdict is not None:
                append(verdict)  # type: ignore[arg-type]  # mypy narrows by `type` only what is final
        return Interpretation(ops, len(records))

    def _generation(self, timestamp_ms: int) -> int:
        return 0 if self._boundary_ms is None else timestamp_ms // self._boundary_ms
