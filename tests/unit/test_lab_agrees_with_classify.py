"""The demo's producer and the pipeline's verdict: two authors, one contract. Every record of a day's traffic gets the
verdict that the producer expects, to the micro-unit (S13, S19, S21, S22)."""

from __future__ import annotations

from collections import Counter

import pytest

from billing.lab.expected import Expected, SessionKey
from billing.lab.oracle import Oracle
from billing.lab.poison import home_partition
from billing.lab.population import PLANS, demo_accounts, tariff_file
from billing.lab.traffic import Mix, Traffic
from billing.rating.catalogue import Catalogue
from billing.rating.tariff_csv import TariffRefused, parse_tariff
from billing.stream.record import StoredRecord
from billing.usage.classify import Classifier
from billing.usage.ops import Charge, DeadLetter, Hold, Stray
from schemas.catalogue import Heartbeat, PlanAssignment, TariffVersion, encode_catalogue
from schemas.reasons import DeadLetterReason

NOW_MS = 1_790_000_000_000
PARTITIONS = 8


def _catalogue() -> Catalogue:
    catalogue = Catalogue()
    for plan, currency in PLANS.items():
        rates = parse_tariff(tariff_file(plan).read_bytes())
        assert not isinstance(rates, TariffRefused), f"{plan}: {rates}"
        version = TariffVersion(timeline="t", plan=plan, version=1, currency=currency, effective_ms=0, rates=rates)
        catalogue.apply(encode_catalogue(version, NOW_MS))
    for account in demo_accounts():
        home = home_partition(account.id, PARTITIONS)
        assigned = PlanAssignment(
            timeline="t",
            account=account.id,
            version=1,
            plan=account.plan,
            effective_ms=0,
            home_partition=home,
            usage_position=0,
        )
        catalogue.apply(encode_catalogue(assigned, NOW_MS))
    catalogue.apply(encode_catalogue(Heartbeat(timeline="t", as_of_ms=NOW_MS), NOW_MS))
    return catalogue


def _books(traffic: Traffic, seconds: int) -> tuple[Expected, Counter[tuple[str, bytes | None, bytes | None]]]:
    """What the verdicts on the traffic add up to, in the order of sending: settled sessions, holds, dead letters."""
    classifier = Classifier(_catalogue(), PARTITIONS)
    books, dead = Expected(), Counter[tuple[str, bytes | None, bytes | None]]()
    offset = 0
    for tick in range(seconds * 100):
        now_ms = NOW_MS + 10 * tick
        for message in traffic.take(now_ms, 5):
            home = home_partition((message.key or b"").decode(errors="replace"), PARTITIONS)
            place = home if message.partition is None else message.partition
            record = StoredRecord("u", place, offset, now_ms + 3, message.key, message.value, message.headers)
            offset += 1
            match classifier.classify(record):
                case Charge() as charge:
                    books.complete(SessionKey(charge.account, charge.kind, charge.session), charge.amount_micros)
                case Hold() as hold:
                    key = SessionKey(hold.account, hold.kind, hold.session)
                    books.hold(key, hold.elapsed, hold.amount_micros, now_ms)
                case DeadLetter() as letter:
                    dead[letter.reason.value, letter.record.key, letter.record.value] += 1
                case Stray() as stray:
                    dead[DeadLetterReason.UNKNOWN_ACCOUNT.value, stray.record.key, stray.record.value] += 1
                case verdict:
                    pytest.fail(f"{verdict!r} on {record!r}")
    return books, dead


@pytest.mark.parametrize("mix", [Mix(), Mix(poison=0.6)], ids=["usual", "mostly poison"])
def test_verdicts_add_up_to_what_the_producer_expects(mix: Mix) -> None:
    oracle = Oracle([(plan, tariff_file(plan)) for plan in PLANS])
    traffic = Traffic(11, demo_accounts(), oracle, PARTITIONS, mix)
    books, dead = _books(traffic, seconds=15)
    expected = traffic.expected
    assert dead == Counter((reason.value, message.key, message.value) for message, reason in expected.poison)
    assert books.settled == expected.settled
    assert books.charged == expected.charged
    assert books.completions == expected.completions
    assert books.open_holds == expected.open_holds
