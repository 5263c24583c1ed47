"""Cards in the ledger: what is saved at the gateway, and what became of trying to save it.

A payment names a customer and a payment method that is attached to it. Both are made once per account, before its first
intent, each under an idempotency key of its own, and persisted in the account's terms at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from billing.ledger.accounts import set_in
from billing.ledger.database import Connection, Pool, fetchrow
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Changes

AUTHOR = "billing/recharge"
MAX_CODE = 100


@dataclass(frozen=True, slots=True)
class Card:
    """An account's card as its terms have it. `saved`: the gateway keeps it with this customer."""

    account: str
    timeline: str
    customer: str | None
    payment_method: str | None
    customer_attempt: int
    card_attempt: int
    saved: bool
    closed: bool

    @property
    def customer_key(self) -> str:
        """The idempotency key of making the customer."""
        return f"recharge:{self.timeline}:{self.account}:customer:{self.customer_attempt}"

    @property
    def card_key(self) -> str:
        """The idempotency key of attaching this payment method to this customer."""
        pair = sha256(f"{self.customer}\n{self.payment_method}".encode()).hexdigest()[:16]
        return f"recharge:{self.timeline}:{self.account}:card:{pair}:{self.card_attempt}"


async def show(pool: Pool, account: str) -> Card | None:
    """The account's card; None: no such account."""

    async def work(connection: Connection) -> Card | None:
        await connection.execute(query("recharge_cards.ensure"), account)
        row = await connection.fetchrow(query("recharge_cards.show"), account)
        if row is None:
            return None
        return Card(
            account=account,
            timeline=row["timeline"],
            customer=row["customer"],
            payment_method=row["payment_method"],
            customer_attempt=row["customer_attempt"],
            card_attempt=row["card_attempt"],
            saved=row["saved"],
            closed=row["status"] == "closed",
        )

    return await in_transaction(pool, work)


async def set_customer(pool: Pool, card: Card, customer: str) -> None:
    """Persist the customer that was made, unless the account has been given another one meanwhile."""

    async def work(connection: Connection) -> None:
        row = await connection.fetchrow(query("accounts.lock"), card.account)
        if row is not None and row["customer"] is None:
            changes = Changes(customer=customer)
            await set_in(connection, card.account, changes, author=AUTHOR, reason="customer made at the gateway")

    await in_transaction(pool, work)


async def set_saved(pool: Pool, card: Card, payment_method: str) -> None:
    """Persist that the card is saved, as `payment_method` (saving may give it another id), unless the terms have
    changed meanwhile."""

    async def work(connection: Connection) -> None:
        row = await connection.fetchrow(query("accounts.lock"), card.account)
        if row is None or (row["customer"], row["payment_method"]) != (card.customer, card.payment_method):
            return
        changes = Changes(payment_method=payment_method)
        await set_in(connection, card.account, changes, author=AUTHOR, reason="card saved at the gateway")
        await connection.execute(query("recharge_cards.saved"), card.account, card.customer, payment_method)

    await in_transaction(pool, work)


async def set_declined(pool: Pool, card: Card, code: str) -> None:
    """The gateway will not save this card: the same back-off and pause as after a declined charge (S36)."""
    await fetchrow(pool, query("recharge_cards.declined"), card.account, card.card_attempt, code[:MAX_CODE])


async def next_attempt(pool: Pool, card: Card) -> None:
    """The gateway replays a saved 5xx: go on under another key, for the customer or, where there is one, the card."""
    if card.customer is None:
        await fetchrow(pool, query("recharge_cards.next_customer_attempt"), card.account, card.customer_attempt)
    else:
        await fetchrow(pool, query("recharge_cards.next_card_attempt"), card.account, card.card_attempt)
