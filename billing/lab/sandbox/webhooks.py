"""Telling an endpoint what happened, signed as Stripe signs, again and again until it answers 2xx."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

import aiohttp
import msgspec
import stripe

from billing.lab.sandbox.charging import charge_json, intent_json
from billing.lab.sandbox.disputes import dispute_json
from billing.lab.sandbox.refunds import refund_json
from billing.lab.sandbox.store import Store, new_id

EVERY_S = 0.05
ANSWER_S = 20.0
LONGEST_WAIT_S = 2.0
MOST_ATTEMPTS = 100


class Webhooks:
    """Sends to `url`, if there is one; `run` it beside the API."""

    def __init__(self, store: Store, url: str | None = None) -> None:
        self._store = store
        self.url = url

    async def run(self) -> None:
        """Until cancelled. One event after the other, in their order; one that is not taken is tried again."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session:
            while True:
                wait_s = EVERY_S
                event = self._next()
                if event is not None and self.url is not None:
                    wait_s = await self._tell(session, self.url, event)
                await asyncio.sleep(wait_s)

    def _next(self) -> sqlite3.Row | None:
        db = self._store.db
        if self.url is None:
            db.execute("DELETE FROM events")
            return None
        found: sqlite3.Row | None = db.execute("SELECT * FROM events ORDER BY seq LIMIT 1").fetchone()
        return found

    async def _tell(self, session: aiohttp.ClientSession, url: str, event: sqlite3.Row) -> float:
        """How long to wait then, in seconds."""
        payload = payload_of(self._store.db, event["type"], event["object"])
        signature = stripe.WebhookSignature.generate_signature_header(payload, self._store.webhook_secret)
        headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
        try:
            async with session.post(url, data=payload.encode(), headers=headers) as response:
                taken = response.status < 300
        except (aiohttp.ClientError, OSError):
            taken = False
        attempts = event["attempts"] + 1
        if taken or attempts >= MOST_ATTEMPTS:
            self._store.db.execute("DELETE FROM events WHERE seq = ?", (event["seq"],))
            return 0.0
        self._store.db.execute("UPDATE events SET attempts = ? WHERE seq = ?", (attempts, event["seq"]))
        return min(LONGEST_WAIT_S, EVERY_S * float(2 ** min(attempts, 10)))


def payload_of(db: sqlite3.Connection, type_: str, object_: str) -> str:
    """The event as it is sent; its object as it is now."""
    event = {
        "id": new_id("evt"),
        "object": "event",
        "created": int(time.time()),
        "livemode": False,
        "type": type_,
        "data": {"object": _object(db, object_)},
    }
    return msgspec.json.encode(event).decode()


def _object(db: sqlite3.Connection, object_: str) -> dict[str, Any]:
    if object_.startswith("re_"):
        return refund_json(db.execute("SELECT * FROM refunds WHERE id = ?", (object_,)).fetchone(), db)
    tables = {"pi": ("payment_intents", intent_json), "ch": ("charges", charge_json), "dp": ("disputes", dispute_json)}
    table, render = tables[object_.partition("_")[0]]
    return render(db.execute(f"SELECT * FROM {table} WHERE id = ?", (object_,)).fetchone())
