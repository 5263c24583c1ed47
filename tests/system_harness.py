"""Names that the system tests share (their fixtures are in system/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from billing.devstack.server import Server
from billing.lab.pipeline import Pipeline
from billing.lab.traffic import Traffic
from billing.settings import Settings

MakeTraffic: TypeAlias = Callable[..., Traffic]
PrivateServers: TypeAlias = tuple[Settings, Sequence[Server]]
RunPipeline: TypeAlias = Callable[..., AbstractAsyncContextManager[Pipeline]]
