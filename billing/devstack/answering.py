"""One short look at whether a server answers at an address: no waiting, no client library."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

from billing.devstack.choice import Service

LOOK_S = 1.0
_POSTGRES_SSL_REQUEST = struct.pack(">ii", 8, 80877103)
_KAFKA_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


def answers(service: Service, address: str) -> bool:
    """Whether this service answers at this address."""
    match service:
        case Service.KAFKA:
            return kafka_answers(address)
        case Service.VALKEY:
            return valkey_answers(address)
        case Service.POSTGRES:
            return postgres_answers(address)


def kafka_answers(bootstrap: str) -> bool:
    """Kafka's port opens last, when the node is ready; an ApiVersions answer shows that it is Kafka's."""
    host, _, port = bootstrap.split(",", 1)[0].rpartition(":")
    answer = _ask(host.strip("[]"), int(port), _KAFKA_API_VERSIONS, 10)
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)


def postgres_answers(dsn: str) -> bool:
    """Answered only by a server that accepts connections over TCP: a starting one has no port, or closes it."""
    parts = urlsplit(dsn)
    return _ask(parts.hostname or "localhost", parts.port or 5432, _POSTGRES_SSL_REQUEST, 1) in (b"S", b"N")


def valkey_answers(url: str, pid: int | None = None) -> bool:
    """Whether it serves (not merely loads) and, when `pid` is given, is that process: a port can be lost in a race."""
    parts = urlsplit(url)
    ends = (b"+PONG\r\n", b"-NOAUTH", b"-LOADING", b"-ERR")
    answer = _ask(parts.hostname or "localhost", parts.port or 6379, b"INFO server\r\nPING\r\n", 65536, ends)
    if b"-NOAUTH" in answer:  # it asks for a password, so it serves
        return True
    return answer.endswith(b"+PONG\r\n") and (pid is None or b"process_id:%d\r\n" % pid in answer)


def _ask(host: str, port: int, question: bytes, limit_bytes: int, ends: tuple[bytes, ...] = ()) -> bytes:
    """The answer up to one of `ends` or `limit_bytes`; empty when nobody answers in time."""
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=LOOK_S) as connection:
            connection.sendall(question)
            while len(answer) < limit_bytes and not any(end in answer for end in ends):
                part = connection.recv(min(4096, limit_bytes - len(answer)))
                if not part:
                    break
                answer += part
    except OSError:
        return b""
    return answer
