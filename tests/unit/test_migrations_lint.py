"""Squawk looks at every migration; what it warns of has been looked at by a person, and has a reason here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REVIEWED = {
    ("0007_recharge", "require-concurrent-index-creation"): "indexes of accounts: openings alone wait, for seconds",
    ("0010_settlement", "require-concurrent-index-deletion"): "drops a catalogue entry: a moment, within lock_timeout",
    ("0014_corrections", "ban-drop-constraint"): "replaced by a wider one in the same transaction",
    ("0014_corrections", "require-concurrent-index-creation"): "partial: no row has the new column yet",
    ("0016_findings_and_halts", "ban-drop-constraint"): "replaced by a wider one in the same transaction",
    ("0016_findings_and_halts", "require-concurrent-index-creation"): "findings are few",
    ("0018_dead_letter_actions", "require-concurrent-index-creation"): "dead letters are few",
}


def lint(*files: Path) -> set[tuple[str, str]]:
    squawk = shutil.which("squawk", path=str(Path(sys.executable).parent))
    assert squawk is not None, "squawk-cli is not installed"
    done = subprocess.run(
        [squawk, "--config", str(ROOT / ".squawk.toml"), "--reporter", "json", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return {(Path(found["file"]).stem, found["rule_name"]) for found in json.loads(done.stdout)}


def test_every_warning_about_a_migration_is_reviewed() -> None:
    files = sorted((ROOT / "billing/ledger/migrations").glob("*.sql"))
    assert len(files) > 10
    assert lint(*files) == set(REVIEWED)


def test_the_linter_finds_what_would_stop_consumers(tmp_path: Path) -> None:
    bad = tmp_path / "0099_bad.sql"
    bad.write_text(
        "alter table usage add column a int not null;\n"
        "create index i on usage (status);\n"
        "alter table usage rename column status to state;\n"
    )
    assert {rule for _, rule in lint(bad)} >= {"require-concurrent-index-creation", "renaming-column"}
