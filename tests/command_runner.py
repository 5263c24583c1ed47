"""The `billing` command as its own process, as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from billing.settings import Settings


async def billing(settings: Settings, *words: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, with the servers of `settings`."""
    ours = {
        "BILLING_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "BILLING_REDIS_URL": settings.redis_url,
        "BILLING_POSTGRES_DSN": settings.postgres_dsn,
        "BILLING_POSTGRES_OWNER_DSN": settings.owner_dsn,
        "BILLING_NAMESPACE": settings.namespace,
        "BILLING_PARTITIONS": str(settings.partitions),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from billing.cli import main; main()", *words),
        env={**os.environ, **ours, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def billing_json(settings: Settings, *words: str, code: int = 0) -> Any:
    """What `words --json` prints, with this exit code."""
    found, out, err = await billing(settings, *words, "--json")
    assert found == code, (words, found, out, err)
    return json.loads(out)
