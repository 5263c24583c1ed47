"""Saving an account's card at the gateway: the customer made where none is given, the payment method attached once."""

from __future__ import annotations

import structlog

from billing.ledger.database import Pool
from billing.recharge import cards
from billing.recharge.cards import Card
from billing.recharge.gateway import (
    Attached,
    CustomerCreated,
    Declined,
    Gateway,
    NotFound,
    Rejected,
    Unknown,
)

log = structlog.get_logger(__name__)

STEPS = 3  # customer, payment method, and the look that finds both


class CardSaver:
    """Each step is persisted before the next; repeating sends the same keys, so nothing is made twice while the gateway
    remembers them, and at worst an idle customer is made later."""

    def __init__(self, pool: Pool, gateway: Gateway) -> None:
        self._pool = pool
        self._gateway = gateway

    async def save(self, account: str) -> bool:
        """Whether the card is saved now. False: declined (which is remembered), or the gateway gave no answer."""
        for _ in range(STEPS):
            card = await cards.show(self._pool, account)
            if card is None or card.closed or card.payment_method is None:
                return False
            if card.saved:
                return True
            went_on = await (self._make_customer(card) if card.customer is None else self._attach(card))
            if not went_on:
                return False
        return False

    async def _make_customer(self, card: Card) -> bool:
        outcome = await self._gateway.create_customer(card.account, idempotency_key=card.customer_key)
        match outcome:
            case CustomerCreated(customer=customer):
                await cards.set_customer(self._pool, card, customer)
                return True
            case Unknown(replayed=True) | Rejected():
                await cards.next_attempt(self._pool, card)
        log.warning("recharge.customer_not_made", account=card.account, outcome=type(outcome).__name__)
        return False

    async def _attach(self, card: Card) -> bool:
        assert card.payment_method is not None
        assert card.customer is not None
        outcome = await self._gateway.attach_payment_method(
            card.payment_method, card.customer, idempotency_key=card.card_key
        )
        match outcome:
            case Attached(payment_method=payment_method):
                await cards.set_saved(self._pool, card, payment_method)
                return True
            case Declined():
                await cards.set_declined(self._pool, card, outcome.decline_code or outcome.code)
            case Rejected(code=code):
                await cards.set_declined(self._pool, card, code)
            case NotFound():
                await cards.set_declined(self._pool, card, "no_such_payment_method")
            case Unknown(replayed=True):
                await cards.next_attempt(self._pool, card)
        log.warning("recharge.card_not_saved", account=card.account, outcome=type(outcome).__name__)
        return False
