"""The function library on Redis 7.4.1 against the pure model."""

from __future__ import annotations

from redis_harness import redis_services
from test_balance_differential import test_r7_r8_s11_function_and_model_agree as agree


def test_r7_r8_s11_function_and_model_agree_on_redis() -> None:
    with redis_services() as services:
        agree(services, 15)
