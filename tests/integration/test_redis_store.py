"""The function library on Redis 7.4.1, scenario by scenario; `make test-redis` runs all tests of the store on it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from redis_harness import redis_services
from test_balance_function import *  # noqa: F403 - each of its tests, on this module's `services`

from billing.balance.client import check_server, open_client
from billing.guard.config_file import compare_file


@pytest.fixture(scope="module")
def services() -> Iterator[SimpleNamespace]:
    with redis_services() as found:
        yield found


async def test_it_is_redis_and_its_configuration_is_understood(services: SimpleNamespace) -> None:
    async with open_client(services.redis_url) as client:
        assert await check_server(client) == "redis 7.4.1"
        view = compare_file(str(services.config_file), await client.config_get("*"))  # type: ignore[union-attr]
    assert (view.unchecked, view.differs) == ("", ())
