"""Lifting a halt, with who and why kept as a finding.

- The cause is gone: the position was verified again, so the partition goes on where it stood.
- Records were removed before they were read (S06, S18): the operator accepts the loss. The position moves to the log's
  start, and a finding says which offsets nobody settled; where Redis had read them, its balances say what they cost,
  and the reconciler names each account.
- The log is another one from some offset on (S15, S17): what stands there was never read, at offsets that the ledger
  has used. It is published again, the same bytes, behind the position; sessions that were settled before stay as they
  are (R7). Where the log ends below the position it is filled up with ticks first, so that offsets never go back.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from billing.balance.calls import Functions
from billing.ledger.database import Connection, Pool, fetch
from billing.ledger.findings import NewFinding, record, resolve
from billing.ledger.history import RESTORED
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.reconcile.halts import Halt, StoreAway, ledger_halt, physical, store_halt
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.record import Position, Record, fingerprint
from billing.stream.ticks import tick

MOST_TICKS = 1_000_000
CHUNK = 500
LOOK_BACK = 1_000  # offsets in which the last record below a position is looked for


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator wants: of which book and logical topic, by whom and why. `replaced_from`: the first offset of
    the log that is not the one that was read."""

    book: str
    topic: str
    partition: int
    author: str
    reason: str
    accept_loss: bool = False
    replaced_from: int | None = None


@dataclass(frozen=True, slots=True)
class Lifted:
    """The partition goes on at `offset`; `lost` offsets were never read, `published_again` records were."""

    book: str
    topic: str
    partition: int
    offset: int
    lost: int = 0
    published_again: int = 0


@dataclass(frozen=True, slots=True)
class NotLifted:
    """Nothing was lifted, because of `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lifting:
    """Everything that a lift needs. Methods raise what asyncpg raises, LogAway."""

    pool: Pool
    functions: Functions
    reader: LogReader
    publisher: Publisher
    settings: Settings

    async def lift(self, order: Order) -> Lifted | NotLifted:
        """Lift one halt."""
        if order.book == "store":
            return await self._lift_store(order)
        rows = await fetch(self.pool, query("halts.halted"))
        row = next((r for r in rows if (r["topic"], r["partition"]) == (order.topic, order.partition)), None)
        if row is None:
            return NotLifted(f"{order.topic}-{order.partition} is not halted in the ledger")
        return await self._lift_ledger(await ledger_halt(self.pool, self.reader, self.settings, row), order)

    async def _lift_ledger(self, halt: Halt, order: Order) -> Lifted | NotLifted:
        if halt.reason.startswith(RESTORED):
            return await _lift_suspicion(self.pool, halt, order)
        if halt.persists is None:
            return await _go_on(self.pool, halt, order, halt.position, {})
        if order.accept_loss:
            return await self._accept_loss(halt, order)
        if order.replaced_from is not None and halt.topic == USAGE_TOPIC:
            return await self._replaced(halt, order, order.replaced_from)
        return _persists(halt)

    async def _lift_store(self, order: Order) -> Lifted | NotLifted:
        halt = await store_halt(self.pool, self.functions, self.reader, self.settings, order.partition)
        if halt is None:
            return NotLifted(f"partition {order.partition} is not halted in the balance store")
        if isinstance(halt, StoreAway):
            return NotLifted(f"the balance store does not answer: {halt.reason}")
        if halt.persists is not None:
            return _persists(halt)
        incarnation = await self.functions.incarnation(order.partition)
        if not isinstance(incarnation, str):
            return NotLifted(f"the balance store does not answer: {incarnation.reason}")
        keys = self.functions.keys.all(order.partition, incarnation)
        reply = await self.functions.call("lift", keys, incarnation, halt.reason)
        if not isinstance(reply, list) or reply[0] != "applied":
            return NotLifted("it has changed meanwhile: look again")
        await in_transaction(self.pool, lambda connection: _remember(connection, halt, order, {}))
        return Lifted("store", halt.topic, halt.partition, halt.position.offset)

    async def _accept_loss(self, halt: Halt, order: Order) -> Lifted | NotLifted:
        start, end = await self.reader.bounds(physical(self.settings, halt.topic), halt.partition)
        before = halt.position.offset
        if before > end or (halt.position.last_offset or 0) >= start:
            return NotLifted(f"no records are missing, the log is another one: {halt.persists}. {halt.advice}")
        position = Position(max(start, before), "")
        return await _go_on(self.pool, halt, order, position, {"lost_from": before, "lost_to": position.offset})

    async def _replaced(self, halt: Halt, order: Order, replaced_from: int) -> Lifted | NotLifted:
        topic, partition, at = physical(self.settings, halt.topic), halt.partition, halt.position.offset
        start, end = await self.reader.bounds(topic, partition)
        first = max(start, replaced_from)
        if at - end > MOST_TICKS:
            return NotLifted(f"the log would have to be filled up with {at - end} ticks, {MOST_TICKS} at most")
        await self._fill_up(topic, partition, at)
        again = await self._publish_again(topic, partition, first, min(at, end))
        last = await self._last_below(topic, partition, at)
        if last is None:
            return NotLifted(f"there is no record below {at} in the log: nothing to hold the position to")
        detail = {"replaced_from": first, "published_again": again}
        return await _go_on(self.pool, halt, order, Position(at, fingerprint(last)), detail)

    async def _fill_up(self, topic: str, partition: int, to: int) -> None:
        while (missing := to - (await self.reader.bounds(topic, partition))[1]) > 0:
            await self.publisher.publish([tick(topic, partition) for _ in range(min(CHUNK, missing))])

    async def _publish_again(self, topic: str, partition: int, first: int, to: int) -> int:
        """The same bytes, behind the position, in their order. Twice is harmless: a session is charged once (R7)."""
        again, chunk = 0, list[Outgoing]()
        async with aclosing(self.reader.read(topic, partition, first, to)) as records:
            async for found in records:
                chunk.append(Outgoing(topic, found.value, found.key, tuple(found.headers), partition))
                if len(chunk) == CHUNK:
                    again += len(await self.publisher.publish(chunk))
                    chunk = []
        if chunk:
            again += len(await self.publisher.publish(chunk))
        return again

    async def _last_below(self, topic: str, partition: int, offset: int) -> Record | None:
        start, _ = await self.reader.bounds(topic, partition)
        last: Record | None = None
        async with aclosing(self.reader.read(topic, partition, max(start, offset - LOOK_BACK), offset)) as records:
            async for found in records:
                last = found
        return last


def _persists(halt: Halt) -> NotLifted:
    return NotLifted(f"the cause persists: {halt.persists}. {halt.advice}")


async def _lift_suspicion(pool: Pool, halt: Halt, order: Order) -> Lifted | NotLifted:
    if halt.persists is not None:
        return _persists(halt)

    async def work(connection: Connection) -> Lifted:
        await connection.execute(query("history.unsuspect"), RESTORED)
        open_ = await connection.fetchval(query("findings.open"), "ledger_restored", None, None)
        if open_ is not None:
            await resolve(connection, open_, author=order.author, reason=order.reason, action="seen")
        await _remember(connection, halt, order, {"all": True})
        return Lifted("ledger", halt.topic, halt.partition, halt.position.offset)

    return await in_transaction(pool, work)


async def _go_on(
    pool: Pool, halt: Halt, order: Order, position: Position, detail: dict[str, Any]
) -> Lifted | NotLifted:
    values = (halt.topic, halt.partition, halt.reason, halt.position.offset, *position)

    async def work(connection: Connection) -> Lifted | NotLifted:
        if await connection.fetchval(query("halts.lift"), *values) is None:
            return NotLifted("it has changed meanwhile: look again")
        await _remember(connection, halt, order, detail)
        lost = position.offset - halt.position.offset
        return Lifted(halt.book, halt.topic, halt.partition, position.offset, lost, detail.get("published_again", 0))

    return await in_transaction(pool, work)


async def _remember(connection: Connection, halt: Halt, order: Order, detail: dict[str, Any]) -> None:
    """Lost records stay an open finding; any other lifted halt is only kept."""
    lost = detail.get("lost_to", 0) > detail.get("lost_from", 0) and halt.topic == USAGE_TOPIC
    seen = f"{halt.book}: {halt.reason}"
    kept = {"seen": seen, "was_wrong": halt.persists, **detail, "by": order.author, "why": order.reason}
    new = NewFinding(
        "records_lost" if lost else "halt_lifted",
        None,
        halt.partition,
        halt.book,
        f"{halt.topic}:{halt.partition}:{halt.position.offset}",
        kept,
    )
    finding = await record(connection, new)
    if finding is not None and not lost:
        await resolve(connection, finding, author=order.author, reason=order.reason, action="seen")
