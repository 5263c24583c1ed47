"""The benchmark's producer: real events, whole sessions, interleaved."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from billing.lab.bench.mix import EVENTS_PER_SESSION, Line, Mix, dialled
from billing.lab.bench.people import CREDIT_MICROS, HOT_CREDIT_MICROS, People, assignment, heartbeat, opening, tariffs
from billing.rating.catalogue import Catalogue
from billing.stream.record import StoredRecord
from billing.usage.classify import Classifier
from billing.usage.ops import Charge, Hold
from billing.usage.partitioner import home_partition
from schemas.catalogue import encode_catalogue
from schemas.common import CLOUDEVENTS_HEADERS
from schemas.ledger import AccountOpened, decode_entry

NOW_MS = 1_790_000_000_000
PEOPLE = People(500, 4)
TARIFFS = tariffs("t1")
NUMBERS = dialled([tariff.rates for tariff in TARIFFS])


def _lines(count: int, *, seed: str = "1", spread: int = 50) -> list[Line]:
    return list(Mix(seed, PEOPLE.homes[2], NUMBERS, now_ms=NOW_MS, spread=spread).take(count))


def _catalogue() -> Catalogue:
    catalogue = Catalogue()
    for tariff in TARIFFS:
        catalogue.apply(encode_catalogue(tariff, NOW_MS))
    for partition in range(4):
        for account, _ in PEOPLE.at_home(partition):
            catalogue.apply(assignment(partition, account, "t1", NOW_MS).value)
    catalogue.apply(heartbeat("t1", NOW_MS).value)
    return catalogue


def test_every_event_is_classified_as_a_hold_or_a_charge() -> None:
    classify = Classifier(_catalogue(), 4).classify
    found = []
    for offset, line in enumerate(_lines(3_000)):
        record = StoredRecord("usage.events", 2, offset, NOW_MS + 5, line.key, line.value, CLOUDEVENTS_HEADERS)
        found.append(classify(record))
    assert {type(op) for op in found} == {Hold, Charge}
    sessions = [(op.account, op.kind, op.session) for op in found if isinstance(op, Charge)]
    assert len(sessions) == len(set(sessions))
    assert len(found) / len(sessions) == pytest.approx(EVENTS_PER_SESSION, rel=0.05)
    assert sum(op.amount_micros > 0 for op in found if isinstance(op, Charge)) > len(sessions) / 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 50, 1_000])
def test_a_fill_has_exactly_so_many_events_and_ends_every_session_that_it_begins(count: int) -> None:
    mix = Mix("1", PEOPLE.homes[0], NUMBERS, now_ms=NOW_MS, spread=30)
    events = [msgspec.json.decode(line.value) for line in mix.take(count)]
    assert len(events) == count
    assert sum(event["type"].endswith(".completed.v1") for event in events) == mix.completed


def test_a_session_keeps_its_order_and_is_spread_over_the_log() -> None:
    steps: dict[str, list[tuple[int, int]]] = {}
    for at, line in enumerate(_lines(4_000, spread=100)):
        session, _, step = msgspec.json.decode(line.value)["id"].partition(".")
        steps.setdefault(session, []).append((int(step), at))
    assert all([step for step, _ in each] == list(range(1, len(each) + 1)) for each in steps.values())
    gaps = [later[1] - earlier[1] for each in steps.values() for earlier, later in pairwise(each)]
    assert 60 < sum(gaps) / len(gaps) < 140


def test_seeds_make_other_sessions_and_the_same_seed_the_same() -> None:
    assert _lines(100) == _lines(100)
    ids = [{msgspec.json.decode(line.value)["id"] for line in _lines(100, seed=seed)} for seed in ("1", "2")]
    assert not ids[0] & ids[1]


def test_accounts_are_at_home_where_the_partitioner_says_and_each_partition_has_a_busy_one() -> None:
    assert sum(map(len, PEOPLE.homes)) == PEOPLE.count == 500
    for partition in range(4):
        everyone = list(PEOPLE.at_home(partition))
        assert {home_partition(account, 4) for account, _ in everyone} == {partition}
        assert everyone[-1] == (PEOPLE.hot[partition], HOT_CREDIT_MICROS)


def test_openings_are_what_the_relay_writes() -> None:
    account = PEOPLE.homes[1][0]
    entry = decode_entry(opening(1, account, CREDIT_MICROS, "t1", NOW_MS).value)
    assert isinstance(entry, AccountOpened)
    assert (entry.account, entry.ledger_seq, entry.credit_micros, entry.timeline) == (account, 1, CREDIT_MICROS, "t1")
    assert Counter(account for account, _ in PEOPLE.at_home(1)).most_common(1)[0][1] == 1
