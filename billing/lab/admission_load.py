"""Load for the admission service: `python -m billing.lab.admission_load --accounts FILE` asks at a fixed rate.

Open loop: each request has its moment, and its latency is counted from there, whether or not the answers before it
are late, so a slow service cannot hide its own delays (coordinated omission). Bounded by `--seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import uvloop

REQUEST_TIMEOUT_S = 5.0


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

        def at(share: float) -> float:
            return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000, 2) if ordered else 0.0

        return {
            "answered": len(ordered),
            "per_second": round(len(ordered) / self.seconds) if self.seconds else 0,
            "p50_ms": at(0.5),
            "p90_ms": at(0.9),
            "p99_ms": at(0.99),
            "p999_ms": at(0.999),
            "max_ms": at(1.0),
            "outcomes": dict(self.outcomes.most_common()),
        }


class _Connection:
    """One kept-alive connection; opened again after trouble."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str) -> str:
        """The reason in the answer, or what went wrong."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                return _decode(await reader.readexactly(length)).reason
        except (OSError, TimeoutError, EOFError, IndexError, msgspec.MsgspecError) as error:
            await self.close()
            return type(error).__name__

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()


async def load(
    address: tuple[str, int], accounts: Sequence[str], *, rate: float, seconds: float, connections: int, seed: int = 1
) -> Report:
    """Ask about calls of random accounts, `rate` a second for `seconds`, over at most `connections` at a time."""
    rng, report, now = random.Random(seed), Report(), time.perf_counter  # the loop's clock has only milliseconds
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    made = [_Connection(*address) for _ in range(connections)]
    for connection in made:
        free.put_nowait(connection)
    query = "kind=call&direction=outbound&to=%2B4930123456"

    async def one(moment: float) -> None:
        connection = await free.get()
        outcome = await connection.ask(f"/v1/accounts/{rng.choice(accounts)}/authorize?{query}")
        report.latencies.append(now() - moment)
        report.outcomes[outcome] += 1
        free.put_nowait(connection)

    begin = now()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            moment = begin + number / rate
            if moment > now():
                await asyncio.sleep(moment - now())
            tasks.create_task(one(moment))
    report.seconds = now() - begin
    for connection in made:
        await connection.close()
    return report


@click.command()
@click.option("--address", default="127.0.0.1:8080", show_default=True, help="host:port of the service")
@click.option("--accounts", type=click.Path(exists=True, path_type=Path), required=True, help="account ids, one a line")
@click.option("--rate", default=1000.0, show_default=True, help="requests a second")
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--connections", default=50, show_default=True)
def main(address: str, accounts: Path, rate: float, seconds: float, connections: int) -> None:
    """Ask the admission service at a fixed rate, and print latencies as JSON."""
    host, _, port = address.rpartition(":")
    names = accounts.read_text(encoding="utf-8").split()
    work = load((host, int(port)), names, rate=rate, seconds=seconds, connections=connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(work)
    click.echo(msgspec.json.format(msgspec.json.encode(report.figures()), indent=2).decode())


if __name__ == "__main__":
    main()
