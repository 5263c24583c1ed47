"""An error of a command that has the name of a function of the command's errors is one line, like any other's."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

import pytest

from billing.cli import main


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
    assert capsys.readouterr().err == "billing: a server does not answer: [Errno 111] refused\n"
