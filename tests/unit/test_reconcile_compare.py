"""One account in two books: what is equal, what is only late, what is wrong."""

from __future__ import annotations

import pytest

from billing.reconcile.compare import (
    Behind,
    Comparison,
    Different,
    Equal,
    Missing,
    Side,
    Unknown,
    compare,
    describe,
    stuck,
)

SAME = Side(balance_micros=5_000_000, ledger_seq=3, last_charge_offset=41)


def side(balance: int = 5_000_000, seq: int = 3, offset: int = 41) -> Side:
    return Side(balance_micros=balance, ledger_seq=seq, last_charge_offset=offset)


@pytest.mark.parametrize(
    ("ledger", "store", "expected"),
    [
        (SAME, SAME, Equal()),
        (None, None, Equal()),
        (SAME, None, Missing("store")),
        (None, SAME, Missing("ledger")),
        (SAME, side(seq=2), Behind("store", "entries")),
        (side(seq=2), SAME, Behind("ledger", "entries")),
        (SAME, side(offset=40), Behind("store", "usage")),
        (side(offset=-1), SAME, Behind("ledger", "usage")),
        (SAME, side(balance=5_000_001), Different(1)),
        (SAME, side(balance=-5_000_000), Different(-10_000_000)),
        (SAME, Unknown("deriving"), Unknown("deriving")),
        (None, Unknown("gap"), Unknown("gap")),
    ],
)
def test_comparison(ledger: Side | None, store: Side | Unknown | None, expected: Comparison) -> None:
    assert compare(ledger, store) == expected


def test_s42_a_difference_counts_only_at_the_same_place() -> None:
    """Drift is told from lateness: other balances at other places are not a difference yet."""
    assert compare(SAME, side(balance=1, seq=2)) == Behind("store", "entries")
    assert compare(SAME, side(balance=1, offset=2)) == Behind("store", "usage")
    assert compare(SAME, side(balance=1)) == Different(-4_999_999)


def test_s20_at_the_same_usage_position_nobody_is_behind_with_usage() -> None:
    """A duplicate that only one book charged moves its last charge for ever: a difference, not lateness."""
    charged_twice = side(balance=4_000_000, offset=52)
    assert compare(SAME, charged_twice) == Behind("ledger", "usage")
    assert compare(SAME, charged_twice, same_usage=True) == Different(-1_000_000)
    assert compare(SAME, side(seq=2), same_usage=True) == Behind("store", "entries")


def test_entries_are_named_before_usage() -> None:
    assert compare(SAME, side(seq=1, offset=1)) == Behind("store", "entries")


def test_r1_missing_and_unknown_are_not_a_balance_of_zero() -> None:
    empty = side(balance=0)
    assert compare(empty, None) == Missing("store")
    assert compare(empty, Unknown("rebuilding")) == Unknown("rebuilding")


@pytest.mark.parametrize(
    ("comparison", "phrase"),
    [
        (Equal(), "equal"),
        (Behind("store", "usage"), "store is behind with usage"),
        (Missing("ledger"), "missing in the ledger"),
        (Different(-5), "store differs from the ledger by -0.000005 USD"),
        (Unknown("gap"), "unknown (gap)"),
        (Unknown("overflow"), "unknown (overflow: its balance, or what is held, is beyond 9007199254.740991 USD)"),
    ],
)
def test_description(comparison: Comparison, phrase: str) -> None:
    assert describe(comparison, "USD") == phrase


def test_r10_what_no_later_look_changes_is_said_at_once() -> None:
    assert stuck(Unknown("unreadable"), SAME)
    assert stuck(Unknown("overflow"), side(balance=-(2**53)))
    assert not stuck(Unknown("overflow"), side(balance=1 - 2**53))  # deriving helps
    assert not stuck(Unknown("overflow"), None)
    assert not stuck(Unknown("deriving"), SAME)
