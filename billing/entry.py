"""The `billing` script: Ctrl-C while the command is still being imported ends it as quietly as later."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; see `billing.cli.main` for the exit codes."""
    try:
        from billing.cli import main as run  # noqa: PLC0415 - inside the try, which is the point

        run()
    except KeyboardInterrupt:
        sys.exit(130)
