"""Given by address, else a container, else a local process: per service, and said."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from billing.devstack.choice import How, Service, choose, container_engine
from billing.settings import SettingError

ALL = {
    "BILLING_KAFKA_BOOTSTRAP": "kafka:9092",
    "BILLING_REDIS_URL": "redis://redis:6379/0",
    "BILLING_POSTGRES_DSN": "postgresql://u@db/billing",
}


class Probe:
    """Counts how often the engine is asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return self.answer


def test_given_addresses_are_used_and_no_engine_is_asked() -> None:
    probe = Probe("")
    choices = choose(ALL, probe)
    assert {service: choice.address for service, choice in choices.items()} == {
        Service.KAFKA: "kafka:9092",
        Service.VALKEY: "redis://redis:6379/0",
        Service.POSTGRES: "postgresql://u@db/billing",
    }
    assert {choice.how for choice in choices.values()} == {How.GIVEN}
    assert probe.asked == 0


def test_containers_where_an_engine_answers() -> None:
    probe = Probe("")
    assert {choice.how for choice in choose({}, probe).values()} == {How.CONTAINER}
    assert probe.asked == 1


def test_local_processes_where_none_does_and_the_reason_is_said() -> None:
    choices = choose({}, Probe("no container engine answers"))
    assert str(choices[Service.KAFKA]) == "Kafka: a local process (no container engine answers)"
    assert {choice.how for choice in choices.values()} == {How.PROCESS}


@pytest.mark.parametrize("given", list(Service))
def test_each_service_is_chosen_by_itself(given: Service) -> None:
    choices = choose({given.setting: ALL[given.setting]}, Probe("no container engine answers"))
    assert choices.keys() == set(Service)
    assert {service for service, choice in choices.items() if choice.how is How.GIVEN} == {given}
    assert str(choices[given]) == f"{given.label}: given by {given.setting}"


def test_an_empty_address_is_not_given() -> None:
    assert choose({**ALL, "BILLING_REDIS_URL": " "}, Probe("none"))[Service.VALKEY].how is How.PROCESS


def test_a_malformed_address_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="BILLING_REDIS_URL"):
        choose({"BILLING_REDIS_URL": "localhost:6379"}, Probe(""))


def test_processes_can_be_asked_for() -> None:
    probe = Probe("")
    assert {choice.how for choice in choose({"BILLING_DEVSTACK": "process"}, probe).values()} == {How.PROCESS}
    assert probe.asked == 0
    with pytest.raises(SettingError, match="BILLING_DEVSTACK"):
        choose({"BILLING_DEVSTACK": "podman"}, probe)


def test_no_engine_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert container_engine() == "no container engine answers"


def test_an_engine_on_another_machine_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.invalid:2375")
    assert container_engine() == "no container engine answers"


@pytest.fixture
def listener() -> Callable[[bytes], int]:
    """A one-shot server that says the given bytes to whoever asks, and returns its port."""

    def listen(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with server:
                server.settimeout(10)
                for _ in range(3):
                    try:
                        connection, _address = server.accept()
                    except OSError:
                        return
                    with connection:
                        connection.settimeout(5)
                        while (asked := _received(connection)) and b"\r\n\r\n" not in asked:
                            pass
                        if answer and asked:
                            connection.sendall(answer)
                        elif asked:
                            time.sleep(4)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    return listen


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def test_a_mute_engine_is_given_up_within_its_limit(
    monkeypatch: pytest.MonkeyPatch, listener: Callable[[bytes], int]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{listener(b'')}")
    began = time.monotonic()
    assert container_engine() == "no container engine answers"
    assert time.monotonic() - began < 8
