"""What the gateway says was charged: its HTTP API read plainly, page by page, past `billing.recharge`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from billing.recharge.stripe_settings import StripeSettings

PAGE = 100
MOST_PAGES = 1_000
TIMEOUT_SECONDS = 10.0
MICROS_PER_MINOR: Mapping[str, int] = {"USD": 10_000, "EUR": 10_000, "JPY": 1_000_000}
"""Of the demo's currencies; the lab's own, so that it can disagree with `billing.money` when that is wrong."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as it stands at the gateway, money in micro-units; account, episode and timeline are its metadata."""

    id: str
    status: str
    amount_micros: int
    received_micros: int
    currency: str
    customer: str
    account: str
    episode: int
    timeline: str

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def final(self) -> bool:
        """Nothing can change it any more."""
        return self.status in ("succeeded", "canceled")


class GatewayAway(RuntimeError):
    """The gateway does not answer as it should."""


class Gateway:
    """A reader of one gateway; see `open_gateway`."""

    def __init__(self, settings: StripeSettings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session

    async def payments(self) -> list[Payment]:
        """Every payment, newest first. Raises GatewayAway."""
        return [_payment(item) async for item in self._all("payment_intents")]

    async def attempts(self) -> list[tuple[str, str]]:
        """Payment id and status of every attempt to charge a card, failed ones too. Raises GatewayAway."""
        return [(item["payment_intent"], item["status"]) async for item in self._all("charges")]

    async def _all(self, what: str) -> AsyncIterator[dict[str, Any]]:
        parameters = {"limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = await self._get(what, parameters)
            for item in page["data"]:
                yield item
            if not page["has_more"]:
                return
            parameters["starting_after"] = page["data"][-1]["id"]
        raise GatewayAway(f"more than {MOST_PAGES} pages of {what}")

    async def _get(self, what: str, parameters: Mapping[str, str]) -> Any:
        try:
            async with self._session.get(f"{self._settings.api_base}/v1/{what}", params=parameters) as answer:
                if answer.status != 200:
                    raise GatewayAway(f"{what}: HTTP status {answer.status}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise GatewayAway(f"{what}: {type(error).__name__}") from error


@asynccontextmanager
async def open_gateway(settings: StripeSettings) -> AsyncIterator[Gateway]:
    """A reader, its connections closed afterwards."""
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Gateway(settings, session)


def _payment(item: Mapping[str, Any]) -> Payment:
    currency = str(item["currency"]).upper()
    metadata = item["metadata"]
    return Payment(
        id=item["id"],
        status=item["status"],
        amount_micros=item["amount"] * MICROS_PER_MINOR[currency],
        received_micros=item["amount_received"] * MICROS_PER_MINOR[currency],
        currency=currency,
        customer=item["customer"] or "",
        account=metadata.get("account", ""),
        episode=int(metadata.get("episode", "0")),
        timeline=metadata.get("timeline", ""),
    )
