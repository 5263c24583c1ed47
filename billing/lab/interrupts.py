"""Ending a run from outside: SIGTERM does what Ctrl-C does, so that everything that was started is stopped."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """From here on Ctrl-C and SIGTERM both end as KeyboardInterrupt. A shell's script starts what it puts into the
    background with SIGINT ignored, and Python would leave it so: SIGTERM, which is passed on as SIGINT, would then do
    nothing. So the Ctrl-C that ends such a script ends its run in the background too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
