"""HTTP for Stripe's SDK over aiohttp.

The SDK's own AIOHTTPClient reads the body outside its error handling and never gives a connection back that was cut
or timed out there; HTTPClient is what the SDK offers to derive one's own from.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import ClassVar

import aiohttp
import stripe


class StripeHttp(stripe.HTTPClient):
    """One pool of connections. Each request is sent once, follows no redirect, and fails as APIConnectionError with
    its cause; a cancelled one drops its connection."""

    name: ClassVar[str] = "aiohttp"

    def __init__(self, deadline_seconds: float) -> None:
        super().__init__()
        self._timeout = aiohttp.ClientTimeout(total=deadline_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """What the SDK calls: body, status and headers."""
        if self._session is None:  # opened here because it belongs to the running loop
            certificates = ssl.create_default_context(cafile=stripe.ca_bundle_path)
            connector = aiohttp.TCPConnector(ssl=certificates)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.request(
                method, url, headers=headers, data=post_data, allow_redirects=False
            ) as response:
                return await response.read(), response.status, response.headers
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            message = f"connection to Stripe: {type(error).__name__}"
            raise stripe.APIConnectionError(message) from error  # type: ignore[no-untyped-call]  # so in the SDK

    async def close_async(self) -> None:
        """Close the connections; the next request would open new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None
