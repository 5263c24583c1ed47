"""Sentinels on this machine, watching a local primary and its replicas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from billing.devstack.ports import LOOPBACK
from billing.devstack.valkey import ValkeyServer

DOWN_AFTER_MS = 800
"""How long the primary is silent before a sentinel takes it for down."""


class SentinelServer(ValkeyServer):
    """One sentinel; `watching` names service, primary's port and quorum before it is started. It writes what it learns
    into its configuration file, so a start after the first one keeps that."""

    name = "Sentinel"
    arguments: ClassVar[tuple[str, ...]] = ("--sentinel",)

    def watching(self, service: str, port: int, quorum: int) -> SentinelServer:
        """Watch the primary at this port."""
        self._watched = (service, port, quorum)
        return self

    def _prepare(self) -> Iterator[None]:
        data = self.directory / "data"
        if not self.config_file.exists():
            data.mkdir(exist_ok=True)
            self.config_file.write_text("\n".join(self._lines(data)) + "\n")
        yield from ()

    def _lines(self, data: Path) -> list[str]:
        service, port, quorum = self._watched
        own = [f"{name} {value}" for name, value in self._own(data).items()]
        return [
            *own,
            f"sentinel monitor {service} {LOOPBACK} {port} {quorum}",
            f"sentinel down-after-milliseconds {service} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {service} 5000",
            f"sentinel parallel-syncs {service} 1",
        ]


def sentinel_url(sentinels: list[SentinelServer], service: str) -> str:
    """The balance store behind these sentinels."""
    return f"redis+sentinel://{','.join(f'{LOOPBACK}:{each.port}' for each in sentinels)}/{service}/0"
