"""Posting sets sum to zero (R6), and a batch charges each session once in any order (R7)."""

from __future__ import annotations

from itertools import groupby
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.ledger.completions import sort_operations
from billing.ledger.entries import COUNTERPART, LedgerAccount, entry_postings, settlement_postings, sums
from billing.money import MAX_MICROS
from billing.usage.ops import Charge
from schemas.ledger import Origin

amounts = st.integers(-MAX_MICROS, MAX_MICROS).filter(bool)
origins = st.sampled_from(get_args(Origin))
charges = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(("USD", "EUR")), st.integers(0, MAX_MICROS)), max_size=30
)


@given(amounts, origins, st.integers(0, 7))
def test_r6_entries_sum_to_zero_and_move_the_customer_by_the_amount(amount: int, origin: Origin, home: int) -> None:
    postings = entry_postings("a", home, "USD", amount, origin)
    assert sums(postings) == {"USD": 0}
    assert [p.amount_micros for p in postings if p.ledger_account is LedgerAccount.CUSTOMER] == [amount]
    assert all((p.account is not None) == (p.ledger_account is LedgerAccount.CUSTOMER) for p in postings)
    assert all((p.partition is not None) == (p.ledger_account is LedgerAccount.REVENUE) for p in postings)


@given(charges)
def test_r6_settlements_sum_to_zero_per_currency(batch: list[tuple[str, str, int]]) -> None:
    postings = settlement_postings(3, batch)
    assert set(sums(postings).values()) <= {0}
    assert all(posting.amount_micros for posting in postings)
    owed = {(p.account, p.currency): -p.amount_micros for p in postings if p.account is not None}
    assert sum(owed.values()) == sum(amount for _, _, amount in batch)


def test_every_origin_has_a_counterpart() -> None:
    assert set(COUNTERPART) == set(get_args(Origin))
    assert LedgerAccount.CUSTOMER not in COUNTERPART.values()


@pytest.mark.parametrize("amount", [0, 2**53, -(2**53), 1.5, True])
def test_s13_what_is_no_amount_is_never_posted(amount: int) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        entry_postings("a", 0, "USD", amount, "credit")


def _charge(offset: int, session: str, amount: int) -> Charge:
    return Charge(
        *(offset, offset, "a", "call", session, amount, "USD", "p", 1, 5, "call", "outbound", "+49", "+49", amount),
        *("completed", "49", f"e{offset}", "s"),
    )


@given(st.data())
def test_r7_s19_of_repeats_the_lowest_offset_counts_in_any_order(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), max_size=12))
    ops = [_charge(offset, session, amount) for offset, (session, amount) in enumerate(drawn)]
    result = sort_operations(data.draw(st.permutations(ops)))
    by_session = {
        session: list(group)
        for session, group in groupby(sorted(ops, key=lambda op: (op.session, op.offset)), key=lambda op: op.session)
    }
    assert {key[2]: charge for key, charge in result.charges.items()} == {s: g[0] for s, g in by_session.items()}
    repeats = sum(len(group) - 1 for group in by_session.values())
    assert result.equal_duplicates + len(result.findings) == repeats
