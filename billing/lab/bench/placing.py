"""A core for the consumer and one for the store, which work for each other all the time. Linux puts a process that is
woken where it ran last, or beside who woke it, and there it waits for the other although a core has nothing to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class Places(NamedTuple):
    """Numbers of cores; None where the machine has but one for us, and nobody is kept to it."""

    consumer: int | None
    store: int | None

    @property
    def stated(self) -> Mapping[str, str]:
        """For the conditions of a table."""
        if self.consumer is None:
            return {"cores of their own": "none"}
        return {"cores of their own": f"consumer {self.consumer}, store {self.store}"}


def places() -> Places:
    """The first two of the cores that we may use."""
    first, second, *_ = [*sorted(os.sched_getaffinity(0)), None, None]
    return Places(first, second) if second is not None else Places(None, None)


def keep(pid: int, core: int | None) -> None:
    """Keep a process's first thread to a core, and what it starts from now on; with None nothing happens."""
    if core is not None:
        os.sched_setaffinity(pid, {core})
