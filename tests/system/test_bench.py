"""`billing bench` end to end, with small counts: every figure is there. What they are worth is for `make bench`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from billing.lab.bench.admission_figures import FIGURES as ADMISSION
from billing.lab.bench.inflight_figures import FIGURES as INFLIGHT
from billing.lab.bench.placing import places
from billing.lab.bench.settle_figures import FIGURES as SETTLE

LIMIT_S = 300
BILLING = Path(sys.executable).with_name("billing")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figures"), [("inflight", INFLIGHT), ("settle", SETTLE), ("admission", ADMISSION)])
async def test_the_benchmark_gives_every_figure(name: str, figures: tuple[object, ...], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(BILLING, "bench", name, "--quick", "--markdown"),
        *("--json", str(tmp_path / "figures.json")),
        env={**os.environ, "BILLING_STATE_DIR": str(tmp_path / "state")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    found = json.loads((tmp_path / "figures.json").read_text())
    assert list(found["figures"]) == [figure.key for figure in figures]  # type: ignore[attr-defined]
    assert all(min(each["runs"]) > 0 for key, each in found["figures"].items() if key != "images_per_session")
    assert found["conditions"]["appendfsync"] == "everysec"
    assert found["conditions"]["fsync"] == "on"
    assert "quick" in found["title"]
    if name == "inflight":
        assert found["conditions"]["kept to cores"] == places().stated["kept to cores"]
    assert f"| {figures[0].label} |" in printed.decode()  # type: ignore[attr-defined]
    assert not list((tmp_path / "state" / "runs").iterdir())
