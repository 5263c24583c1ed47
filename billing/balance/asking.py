"""Asking several servers the same at once: what is needed to find a primary that may have moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from billing.balance.address import Host
from billing.balance.errors import CALL_ERRORS

Answer = TypeVar("Answer")

ASK_S = 1.0
"""How long one of them may take."""
GRACE_S = 0.25
"""How long the others are waited for once one has answered: a dead host must not hold up the rest."""


async def ask_all(
    hosts: Iterable[Host], ask: Callable[[Host], Awaitable[Answer]], *, grace_s: float = GRACE_S
) -> tuple[Mapping[Host, Answer], Mapping[Host, Exception]]:
    """What each answered and what went wrong with the others; those that did not answer in time are in neither."""
    tasks = {asyncio.create_task(_within(ask(host))): host for host in dict.fromkeys(hosts)}
    answers: dict[Host, Answer] = {}
    errors: dict[Host, Exception] = {}
    try:
        waiting, limit_s = set(tasks), ASK_S + GRACE_S
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                try:
                    answers[tasks[task]] = task.result()
                except CALL_ERRORS as error:
                    errors[tasks[task]] = error
            if answers:
                limit_s = grace_s
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answers, errors


async def _within(work: Awaitable[Answer]) -> Answer:
    async with asyncio.timeout(ASK_S):
        return await work
