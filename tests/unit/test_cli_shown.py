"""How fields and rows are shown to people."""

from __future__ import annotations

import json

import pytest

from billing.cli.common import MOMENT, print_fields, print_rows

POSITIONS = {"usage.events": 3, "ledger.entries": None}
FIELDS = {"opened": True, "listed": False, "at": None, "positions": POSITIONS, "none": {}}


def test_people_read_no_python(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(FIELDS, as_json=False)
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        ["opened", "yes"],
        ["listed", "no"],
        ["at", "-"],
        ["positions", "usage.events 3, ledger.entries -"],
        ["none", "-"],
    ]
    print_rows([FIELDS], as_json=False, empty="nothing")
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["yes", "no", "-"]


def test_programs_read_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(FIELDS, as_json=True)
    assert json.loads(capsys.readouterr().out) == FIELDS


def test_a_time_is_called_what_is_to_be_written() -> None:
    assert MOMENT.name.upper() == "YYYY-MM-DDTHH:MM:SSZ"
    assert MOMENT.convert("2026-12-01T00:00:00Z", None, None) == 1_796_083_200_000
