"""Who goes first: a nice value for the process and, where it leads a session of its own, for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from billing.priority import set_nice
from billing.settings import SettingError, Settings

GIVEN = {
    "BILLING_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "BILLING_REDIS_URL": "redis://127.0.0.1:1",
    "BILLING_POSTGRES_DSN": "postgresql://127.0.0.1:1/billing",
}
TELL = """
import os
from billing.priority import AUTOGROUP, set_nice
def group():
    return AUTOGROUP.read_text().split()[-1:] if AUTOGROUP.exists() else []
before = group()
print(set_nice(5), os.getpriority(os.PRIO_PROCESS, 0), *(before or ["none"]), *(group() or ["none"]))
"""


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_and_the_session_that_it_leads_get_the_value(leads: bool) -> None:
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=leads, check=True)
    refused, nice, before, group = done.stdout.split()
    assert (refused, nice) == ("None", "5")
    assert group == ("5" if leads and before != "none" else before)


def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _who: int, _nice: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert set_nice(-5) == "Permission denied"


@pytest.mark.parametrize(("value", "nice"), [(None, None), ("", None), ("0", 0), ("-20", -20), ("19", 19)])
def test_the_setting(value: str | None, nice: int | None) -> None:
    environ = GIVEN if value is None else GIVEN | {"BILLING_NICE": value}
    assert Settings.from_env(environ).nice == nice


@pytest.mark.parametrize("value", ["-21", "20", "low", "--5", "1.5"])
def test_the_setting_is_a_nice_value(value: str) -> None:
    with pytest.raises(SettingError, match="BILLING_NICE must be a whole number from -20 to 19"):
        Settings.from_env(GIVEN | {"BILLING_NICE": value})


REFUSED = """
import os, sys
from billing.process import run_process
def refuse(*_):
    raise PermissionError(13, "Permission denied")
async def main(_process):
    return 0
os.setpriority = refuse
sys.exit(run_process("postflight", main))
"""


def test_a_refusal_is_in_the_log_with_the_value_and_ends_nothing() -> None:
    environ = {**os.environ, **GIVEN, "BILLING_NICE": "-5"}
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environ, capture_output=True, text=True, check=True)
    told = json.loads(done.stderr.splitlines()[0])
    assert (told["event"], told["nice"], told["error"]) == ("nice.refused", -5, "Permission denied")
