"""A short soak: many dedupe generations, nothing grows, both books exact (R7, R11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from billing.devstack.valkey import ValkeyServer
from billing.lab.soak import soak
from billing.settings import Settings

pytestmark = pytest.mark.slow


async def test_r7_sessions_dedupe_windows_and_memory_stay_bounded(
    settings: Settings, private_valkey: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    own = replace(settings, redis_url=private_valkey().url)
    found = await soak(own, tmp_path, seconds=70, rate=800, say=print)
    assert [check for check in found.checks if not check.passed] == []
    generations = {look.settled_sessions for look in found.looks}
    assert 0 < max(generations) < found.looks[-1].published / 4, "sessions were meant to be forgotten"
