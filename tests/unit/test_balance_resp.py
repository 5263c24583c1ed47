"""Redis's protocol as calls of functions read it: whatever pieces an answer arrives in."""

from __future__ import annotations

import pytest

from billing.balance.resp import Failed, Incomplete, Unexpected, pack, parse

REPLIES: list[tuple[bytes, object]] = [
    (b"$3\r\nabc\r\n", b"abc"),
    (b"$2\r\n\r\n\r\n", b"\r\n"),
    (b"$-1\r\n", None),
    (b"_\r\n", None),
    (b":-42\r\n", -42),
    (b"+OK\r\n", b"OK"),
    (b"-MOVED 1 h:2\r\n", Failed("MOVED 1 h:2")),
    (b"*0\r\n", []),
    (b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n_\r\n", [b"a", [1], None]),
    (b">2\r\n+pushed\r\n:1\r\n:7\r\n", 7),
]


def test_a_command_is_packed() -> None:
    assert pack(("A", b"\x00", 12, "é")) == b"*4\r\n$1\r\nA\r\n$1\r\n\x00\r\n$2\r\n12\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(("reply", "value"), REPLIES)
def test_a_reply_is_read_once_it_is_whole(reply: bytes, value: object) -> None:
    for end in range(len(reply)):
        with pytest.raises(Incomplete):
            parse(reply[:end], 0)
    assert parse(reply, 0) == (value, len(reply))
    assert parse(b":1\r\n" + reply + b":2", 4) == (value, 4 + len(reply))


def test_what_no_function_answers_is_refused() -> None:
    with pytest.raises(Unexpected):
        parse(b"%1\r\n+a\r\n+b\r\n", 0)
