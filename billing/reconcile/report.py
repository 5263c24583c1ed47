"""What a comparison of the books found."""

from __future__ import annotations

from dataclasses import dataclass, field

from billing.reconcile.compare import Behind, Comparison, Different, Equal, Missing, Side, Unknown, describe

NAMED = 100


@dataclass(frozen=True, slots=True)
class Compared:
    """An account and how its two sides compare. A side is None where that book has no balance to show."""

    account: str
    partition: int
    comparison: Comparison
    ledger: Side | None
    store: Side | None

    @property
    def currency(self) -> str:
        """The account's, "" where neither book says it."""
        side = self.ledger or self.store
        return "" if side is None else side.currency

    @property
    def what(self) -> str:
        """How its sides compare, in one short phrase for people."""
        return describe(self.comparison, self.currency)


@dataclass(slots=True)
class Report:
    """What a run found: how many accounts by kind of comparison, the first NAMED that are not equal, by name."""

    equal: int = 0
    behind: int = 0
    missing: int = 0
    different: int = 0
    unknown: int = 0
    named: list[Compared] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def accounts(self) -> int:
        return self.equal + self.behind + self.missing + self.different + self.unknown

    @property
    def agreed(self) -> bool:
        """Every account is equal: the only good end of a run."""
        return self.accounts == self.equal

    def add(self, found: Compared) -> None:
        """Count an account, and name it when it is not equal and among the first."""
        match found.comparison:
            case Equal():
                self.equal += 1
                return
            case Behind():
                self.behind += 1
            case Missing():
                self.missing += 1
            case Different():
                self.different += 1
            case Unknown():
                self.unknown += 1
        if len(self.named) < NAMED:
            self.named.append(found)
