"""What a stack is made of, on disk: for the next run to stop, or take over, what this one started."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from billing.devstack.choice import How, Service
from billing.devstack.identity import ProcessId, is_running


class ServiceRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One service. `process` for a local process, `container` for a container; neither when it is stopped."""

    how: How
    address: str
    ports: tuple[int, ...] = ()
    process: ProcessId | None = None
    container: str = ""

    @property
    def runs(self) -> bool:
        return self.process is not None and is_running(self.process)


class StackRecord(msgspec.Struct, omit_defaults=True):
    """All services of a stack, and the consumers that `up` started beside them."""

    services: dict[Service, ServiceRecord] = {}
    consumers: dict[str, ProcessId] = {}

    def save(self, path: Path) -> None:
        """Whole or not at all; addresses carry a password, so only we may read it."""
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self))
        fresh.rename(path)


def load(path: Path) -> StackRecord:
    """The record, or an empty one when there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackRecord)
    except (OSError, msgspec.DecodeError):
        return StackRecord()
