"""What an error of the Redis client means for a call: the outcome is never guessed."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from billing.stream.sink import ReadOnly, Unavailable, Uninitialised

CALL_ERRORS = (RedisError, OSError, TimeoutError)
"""What a call of the client may raise; anything else is a bug."""

# the client replaces these servers' codes by classes
_CODES: dict[type[Exception], str] = {ReadOnlyError: "READONLY", OutOfMemoryError: "OOM"}
_UNREADABLE = ("data string too short", "Missing bytes in input", "Bad data format in input")  # of struct and cmsgpack
UNREADABLE = "a record cannot be read (changed by another hand?): the reconciler mends and names it"
_OF_CONNECTION: dict[type[Exception], str] = {
    AuthenticationError: "the login is refused",
    BusyLoadingError: "it is loading its data",
    RedisConnectionError: "no connection",
    OSError: "no connection",
}
_CANNOT_WRITE = ("READONLY", "NOREPLICAS", "OOM", "MISCONF")
_NOT_LEADING = ("READONLY", "NOREPLICAS")  # a replica by now, or a primary that its replicas have left


def may_lead_elsewhere(error: Exception) -> bool:
    """Whether the server that answered this may have been replaced: a new connection might lead to another."""
    return _code(error) in _NOT_LEADING


def _code(error: Exception) -> str:
    return _CODES.get(type(error), str(error).split(" ", 1)[0])


def answer_for(error: Exception) -> ReadOnly | Unavailable | Uninitialised:
    """The answer that `error`, raised by a call of the client, stands for.

    ReadOnly: the server refused before the function ran. Uninitialised: the functions are gone, so the server started
    empty. Unavailable: everything else, the outcome unknown (a script error too: its torn mark decides).
    """
    text = str(error)
    code = _code(error)
    if code in _CANNOT_WRITE:
        return ReadOnly(code)
    if "Function not found" in text:
        return Uninitialised("functions missing")
    if any(told in text for told in _UNREADABLE):
        return Unavailable(UNREADABLE)
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return Unavailable("timeout")
    for kind, words in _OF_CONNECTION.items():
        if isinstance(error, kind):
            return Unavailable(words)
    return Unavailable(f"{type(error).__name__}: {text[:200]}")
