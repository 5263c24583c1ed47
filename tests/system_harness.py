"""Names that the system tests share (their fixtures are in system/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from billing.lab.pipeline import Pipeline
from billing.lab.traffic import Traffic

MakeTraffic: TypeAlias = Callable[..., Traffic]
RunPipeline: TypeAlias = Callable[..., AbstractAsyncContextManager[Pipeline]]
