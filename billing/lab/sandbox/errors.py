"""Errors as Stripe writes them: `{"error": {"type", "code", "message", "param", …}}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

INVALID_REQUEST = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body."""

    status: int
    body: bytes


def answer(status: int, content: dict[str, Any]) -> Answer:
    """Encode."""
    return Answer(status, msgspec.json.encode(content))


def error(status: int, kind: str, message: str, **more: Any) -> Answer:
    """An error answer; members that are None are left out, as Stripe does."""
    content = {"type": kind, "message": message, **more}
    return answer(status, {"error": {name: value for name, value in content.items() if value is not None}})


class Invalid(Exception):
    """A request that fails before its endpoint begins: nothing is changed, nothing saved under its key."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.answer = error(status, INVALID_REQUEST, message, code=code, param=param)


def missing(what: str, identifier: str, param: str, *, status: int = 404) -> Invalid:
    """No such object. Stripe says 404 for one named in the path, 400 for one named in a parameter."""
    return Invalid(f"No such {what}: '{identifier}'", status=status, code="resource_missing", param=param)
