"""How long and how often the owner asks the ledger for an account (R11): a clock and a ledger of the test's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from billing.balance import derive
from billing.balance.derive import BACKOFF_S, WAIT_S, Deriver
from billing.balance.keys import KeySpace
from billing.balance.records import AccountRecord, UnknownRecord
from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerUnavailable
from billing.stream.sink import Fenced, Owner

SNAPSHOT = AccountSnapshot("t1", "USD", 5, 0, 0, None, 0, 9, -1, "open", [("call", f"s{i}") for i in range(2_500)])


class Bench:
    """The function calls' and the ledger's side; time passes only by waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.asked: list[tuple[str, int, int]] = []
        self.calls: list[tuple[str, Any]] = []
        self.keys = KeySpace("ns", 8, 1_000)
        self.ledger: list[Any] = []
        self.answer: Any = ["applied"]
        monkeypatch.setattr(derive.asyncio, "sleep", self.sleep)
        self.deriver = Deriver(self, self, clock=lambda: self.now_s)  # type: ignore[arg-type]

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    async def derive(self, account: str, partition: int, below_offset: int, settled_since_ms: int) -> Any:
        self.asked.append((account, below_offset, settled_since_ms))
        return self.ledger.pop(0) if self.ledger else LedgerLagging()

    async def call(self, name: str, keys: list[str], incarnation: str, *args: Any) -> Any:
        self.calls.append((name, args))
        return self.answer

    async def tend(self, offset: int, seen: int = 1) -> Any:
        return await self.deriver.derive(
            Owner(1, "n"), 3, "1", 10_500, [("a1", UnknownRecord("deriving", offset, seen, offset))]
        )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_a_lagging_ledger_is_asked_once_a_round_while_nothing_moves(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.tend(10) is None
    assert bench.asked == [("a1", 10, 8_000)] * 3  # the window begins two generations before the current one
    assert bench.now_s == 100.0


async def test_where_d_keeps_moving_the_owner_waits_then_backs_off(bench: Bench) -> None:
    await bench.tend(10)
    await bench.tend(11)
    assert WAIT_S - 0.2 <= bench.now_s - 100.0 <= WAIT_S
    asked = len(bench.asked)
    await bench.tend(12)
    assert len(bench.asked) == asked
    bench.now_s += BACKOFF_S
    bench.ledger = [LedgerLagging(), LedgerLagging(), SNAPSHOT]
    await bench.tend(13)
    assert [name for name, _ in bench.calls] == ["settled"] * 3 + ["derive"]
    assert bench.calls[-1][1][:5] == (1, "n", "a1", 13, "t1")


async def test_a_ledger_that_is_away_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.ledger = [LedgerUnavailable("refused")]
    await bench.tend(10)
    await bench.tend(10)
    assert len(bench.asked) == 1


async def test_a_snapshot_older_than_the_entries_seen_is_not_used(bench: Bench) -> None:
    bench.ledger = [SNAPSHOT]
    assert await bench.tend(10, seen=10) is None
    assert bench.calls == []


async def test_a_refusal_of_the_store_ends_the_round(bench: Bench) -> None:
    bench.ledger, bench.answer = [SNAPSHOT], Fenced()
    assert await bench.tend(10) == Fenced()
    assert len(bench.calls) == 1


async def test_s13_an_account_that_the_store_cannot_hold_stays_unknown_and_stops_nobody(bench: Bench) -> None:
    bench.ledger = [replace(SNAPSHOT, used_micros=2**53 + 6)]
    assert await bench.tend(10) is None
    assert bench.calls == []  # the function would refuse it as a bug, which ends the process
    await bench.tend(10)
    assert len(bench.asked) == 1
    bench.now_s += BACKOFF_S
    bench.ledger = [replace(SNAPSHOT, used_micros=2**53 + 3)]  # what was ever used does not fit, the balance does
    await bench.tend(10)
    assert bench.calls[-1][0] == "derive"
    record = AccountRecord.read(bench.calls[-1][1][5])
    assert record is not None
    assert (record.credit, record.used) == (3 - 2**53, 1)
