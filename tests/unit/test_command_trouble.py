"""An error of a command that has the name of a function of the command's errors is one line, like any other's."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError
from redis.exceptions import ConnectionError as RedisConnection
from redis.exceptions import TimeoutError as RedisTimeout

from billing.cli import main
from billing.cli.errors import explain
from billing.stream.log import LogAway


def log_away() -> LogAway:
    away = LogAway("KafkaConnectionError: Unable to bootstrap from [('127.0.0.1', 1, <AddressFamily.AF_INET: 2>)]")
    away.__cause__ = KafkaConnectionError("Unable to bootstrap")
    return away


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RedisTimeout("Timeout reading from 127.0.0.1:1"), "Redis: did not answer in time (BILLING_REDIS_URL)"),
        (RedisConnection("Error 111 connecting to h:1."), "Redis: cannot be reached (BILLING_REDIS_URL)"),
        (
            asyncpg.InvalidPasswordError('password authentication failed for user "x"'),
            "PostgreSQL: refuses the login (BILLING_POSTGRES_DSN)",
        ),
        (
            asyncpg.UndefinedTableError('relation "ledger_meta" does not exist'),
            "PostgreSQL: the ledger is not migrated to this build: run `billing migrate`",
        ),
        (asyncpg.DataError("something new"), "PostgreSQL: something new"),
        (log_away(), "Kafka: cannot be reached (BILLING_KAFKA_BOOTSTRAP)"),
        (LogAway("no answer from Kafka within the deadline"), "Kafka: no answer from Kafka within the deadline"),
        (ValueError("a bug"), None),
    ],
)
def test_trouble_with_a_server_is_said_in_plain_words(error: Exception, line: str | None) -> None:
    assert explain(error) == line


@pytest.mark.parametrize("words", [["explain", "a"], ["statement", "a"]])
def test_an_error_of_explain_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    def away(work: Coroutine[Any, Any, Any]) -> None:
        work.close()
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setenv("BILLING_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("BILLING_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("BILLING_POSTGRES_DSN", "postgresql://127.0.0.1:1/none")
    monkeypatch.setattr(import_module(f"billing.cli.{words[0]}"), "run", away)
    monkeypatch.setattr(sys, "argv", ["billing", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "billing: a server cannot be reached: connection refused\n"
