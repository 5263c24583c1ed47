"""The consumers of a run, each as its own process, as they would run in production."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from billing.lab.processes import Process
from billing.lab.waiting import WaitedTooLong, until
from billing.settings import Settings

CONSUMERS = ("relay", "inflight", "postflight")
WITH_RECHARGE = (*CONSUMERS, "recharge", "reconciler")
READY_TIMEOUT_SECONDS = 60.0


class ConsumerFailed(RuntimeError):
    """A consumer ended on its own or did not become ready; the message has the end of its log."""


DESCRIBING = ("BILLING_EXPECT_PERSISTENCE", "BILLING_PROOF_REPLICAS", "BILLING_PROOF_AOF")
"""Settings that describe a given Redis: they are the consumers' too."""


def environment(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a consumer: ours, with these settings."""
    kept = {name: value for name, value in environ.items() if name in DESCRIBING or not name.startswith("BILLING_")}
    return kept | {
        "BILLING_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "BILLING_REDIS_URL": settings.redis_url,
        "BILLING_POSTGRES_DSN": settings.postgres_dsn,
        "BILLING_NAMESPACE": settings.namespace,
        "BILLING_PARTITIONS": str(settings.partitions),
        "BILLING_DEDUPE_GENERATION_SECONDS": str(settings.generation_ms // 1000),
        "PYTHONUNBUFFERED": "1",
    }


def operators_environment(settings: Settings) -> dict[str, str]:
    """The environment of an operator's command: a consumer's, and the ledger's owner, as whom it migrates."""
    return environment(settings) | {"BILLING_POSTGRES_OWNER_DSN": settings.owner_dsn}


class Consumer(Process):
    """`python -m consumers.<kind>`, with a health port."""

    def __init__(
        self, name: str, kind: str, settings: Settings, log_folder: Path, extra: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            name,
            [sys.executable, "-m", f"consumers.{kind}"],
            environment(settings) | {"BILLING_METRICS_PORT": "0"} | dict(extra or {}),
            log_folder / f"{name}.log",
        )
        self.kind = kind
        self.port = 0
        self._log_start = 0

    def start(self) -> None:
        self.port = 0
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        super().start()

    async def health(self) -> dict[str, object] | None:
        """What it says of itself on /health, or None while it says nothing."""
        port = self._find_port()
        return await read_health(port) if port else None

    async def ready(self, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait until it calls itself healthy. Raises ConsumerFailed."""

        async def healthy() -> bool:
            if not self.running:
                raise ConsumerFailed(f"{self.name} ended with exit code {self.exit_code}{self.last_words()}")
            health = await self.health()
            return health is not None and bool(health.get("healthy"))

        try:
            await until(healthy, f"{self.name} was to be ready", timeout_seconds=timeout_seconds, every_seconds=0.1)
        except WaitedTooLong as error:
            raise ConsumerFailed(f"{error}{self.last_words()}") from None

    def last_words(self) -> str:
        """The last thing in its log that was no routine, for a message about why it ended."""
        said = [line for line in self.last_lines(50) if '"level": "info"' not in line]
        return f": {said[-1]}" if said else ""

    def _find_port(self) -> int:
        """The port that the system gave it stands in its log."""
        if not self.port and self.log.exists():
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                for line in file:
                    with suppress(msgspec.DecodeError):
                        port = msgspec.json.decode(line).get("port")
                        if isinstance(port, int):
                            self.port = port
                            break
        return self.port


class Supervisor:
    """All consumers of a run. While a `Keeper` keeps them, one that ends is started again; else that ends the run."""

    def __init__(
        self,
        settings: Settings,
        log_folder: Path,
        kinds: Sequence[str] = CONSUMERS,
        each: int = 1,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self.kept = False
        self.consumers = {
            name: Consumer(name, kind, settings, log_folder, extra)
            for kind in kinds
            for name in ([kind] if each == 1 else [f"{kind}-{n}" for n in range(1, each + 1)])
        }
        self._expected_dead: set[str] = set()

    async def start(self) -> None:
        """Start all and wait until all are ready."""
        for consumer in self.consumers.values():
            consumer.start()
        await asyncio.gather(*(consumer.ready() for consumer in self.consumers.values()))

    async def kill(self, name: str) -> None:
        """SIGKILL one, on purpose."""
        self._expected_dead.add(name)
        await self.consumers[name].kill()

    async def leave(self, name: str) -> bool:
        """Ask one to drain and end, on purpose. True when it did."""
        self._expected_dead.add(name)
        return await self.consumers[name].stop()

    def restart(self, name: str) -> None:
        """Start one again after `kill` or `leave`."""
        self.consumers[name].start()
        self._expected_dead.discard(name)

    def dead(self) -> list[str]:
        """Those that have ended though nobody asked them to."""
        return [name for name, each in self.consumers.items() if not each.running and name not in self._expected_dead]

    def check(self) -> None:
        """Raise ConsumerFailed when one has ended that nobody killed, and nobody starts it again."""
        for name in [] if self.kept else self.dead():
            consumer = self.consumers[name]
            raise ConsumerFailed(f"{name} ended with exit code {consumer.exit_code}{consumer.last_words()}")

    async def stop(self) -> dict[str, bool]:
        """Stop all at once; name to whether it drained by itself (those killed on purpose are left out)."""
        names = [name for name in self.consumers if name not in self._expected_dead]
        self._expected_dead.update(names)
        drained = await asyncio.gather(*(self.consumers[name].stop() for name in names))
        return dict(zip(names, drained, strict=True))


async def read_health(port: int, timeout_seconds: float = 2) -> dict[str, object] | None:
    """GET /health on loopback; None when nobody answers in time or not with JSON."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return msgspec.json.decode(body, type=dict[str, object])
    except (TimeoutError, OSError, msgspec.DecodeError):
        return None
