"""From records of `usage.events` to the operations of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from billing.stream.record import Record
from billing.stream.sink import Interpretation
from billing.usage.classify import Classifier, NeedsHorizon
from billing.usage.ops import UsageOp


class UsageInterpreter:
    """Classifies record by record, up to the first that needs a horizon which the catalogue has not reached.

    `boundary_ms`: a batch never spans two values of `record.timestamp // boundary_ms` (a dedupe generation).
    """

    def __init__(self, classifier: Classifier, boundary_ms: int | None = None) -> None:
        self._classify = classifier.classify
        self._boundary_ms = boundary_ms

    def interpret(self, records: Sequence[Record]) -> Interpretation[UsageOp]:
        """Operations of as many of `records`, from the first, as one batch may cover."""
        classify = self._classify
        ops: list[UsageOp] = []
        within = self._within_generation(records)
        for taken in range(within):
            verdict = classify(records[taken])
            if isinstance(verdict, NeedsHorizon):
                return Interpretation(ops, taken, verdict.horizon_ms)
            if verdict is not None:
                ops.append(verdict)
        return Interpretation(ops, within)

    def _within_generation(self, records: Sequence[Record]) -> int:
        """How many records, from the first, share its generation."""
        if self._boundary_ms is None or not records:
            return len(records)
        generation = records[0].timestamp // self._boundary_ms
        for index, record in enumerate(records):
            if record.timestamp // self._boundary_ms != generation:
                return index
        return len(records)
