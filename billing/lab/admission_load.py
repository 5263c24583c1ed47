"""Load for the admission service: `python -m billing.lab.admission_load --accounts FILE` asks at a fixed rate.

Open loop: each request has its moment, and its latency is counted from there, whether or not the answers before it
are late, so a slow service cannot hide its own delays (coordinated omission). Bounded by `--seconds`. One thread and
select(), which waits by the microsecond: an event loop's timers have milliseconds, as much as what is measured.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec

from billing.lab.bench.stats import percentile

REQUEST_TIMEOUT_S = 5.0
MOST_CONNECTIONS = 500  # select() takes 1024 files
QUERY = "kind=call&direction=outbound&to=%2B4930123456"


class _Answered(msgspec.Struct):
    reason: str = "problem"


_decode = msgspec.json.Decoder(_Answered).decode


@dataclass
class Report:
    """What came of a run; latencies in seconds, from each request's moment to its answer."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, float | int | dict[str, int]]:
        """Requests, rate, latencies in ms, and how often each reason (or trouble) was answered."""
        ordered = sorted(self.latencies)
        shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
        return {
            "answered": len(ordered),
            "per_second": round(len(ordered) / self.seconds) if self.seconds else 0,
            **{name: round(percentile(ordered, share) * 1000, 3) if ordered else 0.0 for name, share in shares.items()},
            "outcomes": dict(self.outcomes.most_common()),
        }


class _Connection:
    """One kept-alive connection, with at most one request under way: that of `moment`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.moment = 0.0
        self._received = b""
        self.socket = self._open()

    def ask(self, account: str, moment: float) -> None:
        """Raises OSError."""
        self.moment = moment
        self.socket.send(f"GET /v1/accounts/{account}/authorize?{QUERY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def receive(self) -> str | None:
        """The reason, once the whole answer is there. Raises OSError, and ValueError for what is no answer."""
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionResetError
        self._received += received
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return None
        self._received = b""
        return _decode(body).reason

    def again(self) -> None:
        """A new connection in its place. Raises OSError."""
        self.socket.close()
        self._received = b""
        self.socket = self._open()

    def _open(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=REQUEST_TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


class Load:
    """`rate` requests a second about calls of random accounts, over at most `connections` at a time."""

    def __init__(self, address: tuple[str, int], accounts: Sequence[str], *, rate: float, connections: int) -> None:
        self._accounts = accounts
        self._rate = rate
        self._report = Report()
        self._selector = selectors.SelectSelector()
        self._free = deque(_Connection(address) for _ in range(connections))
        self._asked: set[_Connection] = set()
        self._rng = random.Random(1)

    def run(self, seconds: float) -> Report:
        """Until every request has its answer, or timed out. Raises OSError where the service does not listen."""
        count, sent, begin = int(self._rate * seconds), 0, time.perf_counter()
        while sent < count or self._asked:
            now = time.perf_counter()
            while sent < count and self._free and begin + sent / self._rate <= now:
                self._ask(begin + sent / self._rate)
                sent += 1
            due = begin + sent / self._rate if sent < count and self._free else now + REQUEST_TIMEOUT_S
            for key, _ in self._selector.select(max(0.0, due - time.perf_counter())):
                self._receive(key.data)
            self._give_up(now)
        self._report.seconds = time.perf_counter() - begin
        for connection in self._free:
            connection.socket.close()
        return self._report

    def _ask(self, moment: float) -> None:
        connection = self._free.popleft()
        self._asked.add(connection)
        try:
            connection.ask(self._rng.choice(self._accounts), moment)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        except OSError as error:
            self._trouble(connection, error)

    def _receive(self, connection: _Connection) -> None:
        try:
            reason = connection.receive()
        except (OSError, ValueError, IndexError, msgspec.MsgspecError) as error:
            self._selector.unregister(connection.socket)
            self._trouble(connection, error)
            return
        if reason is not None:
            self._selector.unregister(connection.socket)
            self._done(connection, reason)

    def _give_up(self, now: float) -> None:
        for connection in [each for each in self._asked if now - each.moment > REQUEST_TIMEOUT_S]:
            self._selector.unregister(connection.socket)
            self._trouble(connection, TimeoutError())

    def _trouble(self, connection: _Connection, error: Exception) -> None:
        connection.again()
        self._done(connection, type(error).__name__)

    def _done(self, connection: _Connection, outcome: str) -> None:
        self._report.latencies.append(time.perf_counter() - connection.moment)
        self._report.outcomes[outcome] += 1
        self._asked.discard(connection)
        self._free.append(connection)


@click.command()
@click.option("--address", default="127.0.0.1:8080", show_default=True, help="host:port of the service")
@click.option("--accounts", type=click.Path(exists=True, path_type=Path), required=True, help="account ids, one a line")
@click.option("--rate", default=1000.0, show_default=True, help="requests a second")
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--connections", type=click.IntRange(1, MOST_CONNECTIONS), default=50, show_default=True)
def main(address: str, accounts: Path, rate: float, seconds: float, connections: int) -> None:
    """Ask the admission service at a fixed rate, and print latencies as JSON."""
    host, _, port = address.rpartition(":")
    names = accounts.read_text(encoding="utf-8").split()
    try:
        report = Load((host, int(port)), names, rate=rate, connections=connections).run(seconds)
    except OSError as error:
        raise click.ClickException(f"{address}: {error}") from None
    click.echo(msgspec.json.format(msgspec.json.encode(report.figures()), indent=2).decode())


if __name__ == "__main__":
    main()
