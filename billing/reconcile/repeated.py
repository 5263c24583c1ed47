"""Why the books differ, where that can be told: a completion that came again after the balance store had forgotten its
session is charged there a second time, and refused by the ledger (S20)."""

from __future__ import annotations

from typing import Any, TypeAlias

from billing.ledger.database import Connection
from billing.ledger.queries import query
from billing.reconcile.report import Compared
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway, OutOfRange
from billing.stream.record import Record
from billing.usage.decode import decode
from billing.usage.ops import SessionKind
from schemas.usage import CallCompletedEvent, ItemCompletedEvent, MessageCompletedEvent

Session: TypeAlias = tuple[SessionKind, str]


async def repeated_session(
    connection: Connection, log: LogReader, topic: str, found: Compared
) -> dict[str, Any] | None:
    """The session that the store charged again, with the offset that counts and the one that was charged again. None
    where that does not explain the difference, or the log cannot say. Raises what asyncpg raises."""
    ledger, store = found.ledger, found.store
    if ledger is None or store is None or store.balance_micros >= ledger.balance_micros:
        return None
    again = store.last_charge_offset
    if again <= ledger.last_charge_offset:
        return None  # the store's last charge is the ledger's too: something else is wrong
    try:
        record = await log.record_at(topic, found.partition, again)
    except (LogAway, OutOfRange):
        return None
    session = None if record is None else _completed(record, found.account)
    if session is None:
        return None
    settled = await connection.fetchval(query("reconcile.settled_at"), found.account, *session)
    if settled is None or settled >= again:
        return None
    return {"session": "/".join(session), "settled_at": settled, "repeated_at": again}


def _completed(record: Record, account: str) -> Session | None:
    event = decode(record)
    match event:
        case CallCompletedEvent() if event.subject == account:
            return "call", event.data.call_id
        case MessageCompletedEvent() if event.subject == account:
            return "message", event.data.message_id
        case ItemCompletedEvent() if event.subject == account:
            return "item", event.data.item_id
        case _:
            return None
