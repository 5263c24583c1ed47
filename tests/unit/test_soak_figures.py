"""When a soak calls something flat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing.lab.soak_figures import MIB, WARM_UP, Look, flat_checks, table

LOOK = Look(
    seconds=10.0,
    published=8_000,
    behind=0,
    open_sessions=1_000,
    settled_sessions=9_000,
    unknown=0,
    signals=3,
    redis_bytes=20 * MIB,
    inflight_bytes=70 * MIB,
    postflight_bytes=80 * MIB,
)


def test_what_only_swings_is_flat_whatever_the_warm_up_was() -> None:
    looks = [replace(LOOK, redis_bytes=n * MIB) for n in range(WARM_UP)]
    looks += [replace(LOOK, open_sessions=1_000 + swing) for swing in (0, 90, 10, 80, 5, 95)]
    assert all(check.passed for check in flat_checks(looks))


@pytest.mark.parametrize(
    ("member", "step"),
    [
        ("open_sessions", 200),
        ("settled_sessions", 1_500),
        ("unknown", 30),
        ("signals", 400),
        ("redis_bytes", 2 * MIB),
        ("inflight_bytes", 4 * MIB),
        ("postflight_bytes", 4 * MIB),
    ],
)
def test_what_grows_is_named(member: str, step: int) -> None:
    looks = [replace(LOOK, **{member: getattr(LOOK, member) + step * number}) for number in range(WARM_UP + 8)]
    assert len([check for check in flat_checks(looks) if not check.passed]) == 1


def test_the_table_has_a_line_per_look() -> None:
    assert len(table([LOOK, LOOK]).splitlines()) == 3
