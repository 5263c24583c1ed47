"""The sandbox as a process of its own, with its controls: for the development stack, the demo and tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from billing.devstack.processes import spawn, tail
from billing.lab.sandbox.faults import Kind
from billing.recharge.stripe_settings import StripeSettings

_START_SECONDS = 20.0
_LOOK_SECONDS = 0.02
_STOP_SECONDS = 10.0
_CONTROL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Controls:
    """What only a sandbox can do. Blocking; raises OSError where it is away."""

    settings: StripeSettings

    def add_fault(self, fault: Kind, *, count: int = 1, seconds: float = 0.0) -> None:
        """Queue a fault; see `billing.lab.sandbox.faults.Fault`."""
        self._ask("POST", "/_sandbox/faults", {"fault": fault, "count": count, "seconds": seconds})

    def faults(self) -> list[dict[str, Any]]:
        """What is still queued."""
        queued: list[dict[str, Any]] = self._ask("GET", "/_sandbox/faults")["faults"]
        return queued

    def clear_faults(self) -> None:
        """Drop the queue."""
        self._ask("DELETE", "/_sandbox/faults")

    def forget_keys(self) -> int:
        """Forget every idempotency key; returns how many."""
        forgotten: int = self._ask("POST", "/_sandbox/forget_keys", {})["forgotten"]
        return forgotten

    def tell(self, url: str | None) -> str:
        """Send webhooks to this endpoint (None: to nobody); the secret that they are signed with."""
        secret: str = self._ask("POST", "/_sandbox/webhooks", {"url": url})["secret"]
        return secret

    def dispute(self, payment: str, amount: int | None = None) -> str:
        """The customer's bank takes it back, in minor units (None: all); the dispute's id."""
        content = {"payment_intent": payment, "amount": amount}
        opened: str = self._ask("POST", "/_sandbox/disputes", content)["dispute"]
        return opened

    def close_dispute(self, dispute: str, status: str) -> None:
        """`won` or `lost`."""
        self._ask("POST", "/_sandbox/disputes", {"dispute": dispute, "status": status})

    def refund(self, payment: str, amount: int) -> str:
        """Give back `amount` minor units of it; the refund's id."""
        made: str = self._ask("POST", "/v1/refunds", form={"payment_intent": payment, "amount": str(amount)})["id"]
        return made

    def fail_refund(self, refund: str) -> None:
        """A refund that succeeded comes back from the customer's bank."""
        self._ask("POST", "/_sandbox/failed_refunds", {"refund": refund})

    def charges(self, payment: str) -> list[str]:
        """The status of every attempt on a payment, newest first: `succeeded`, `failed`."""
        listed = self._ask("GET", f"/v1/charges?limit=100&payment_intent={payment}")
        return [charge["status"] for charge in listed["data"]]

    def _ask(self, method: str, path: str, content: object = None, *, form: dict[str, str] | None = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        kind = "application/json" if form is None else "application/x-www-form-urlencoded"
        request = urllib.request.Request(
            self.settings.api_base + path,
            method=method,
            data=body if form is None else urlencode(form).encode(),
            headers={"Authorization": f"Bearer {self.settings.api_key}", "Content-Type": kind},
        )
        with urllib.request.urlopen(request, timeout=_CONTROL_SECONDS) as response:
            return json.load(response)


class SandboxProcess:
    """A running sandbox over the state in `folder`, which outlives it. It ends, at the latest, with this process."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        """Start it and wait until it accepts connections. Raises RuntimeError where it does not."""
        command = [sys.executable, "-m", "billing.lab.sandbox", "--json", "--state", str(folder), "--port", str(port)]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the log has the key in it
        self._log = folder / "sandbox.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._process = spawn(command, log=self._log, cwd=Path.cwd(), environ=os.environ)
        self.folder = folder
        self.settings = self._read_settings()
        self.controls = Controls(self.settings)

    @property
    def port(self) -> int:
        return int(self.settings.api_base.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """SIGTERM, then wait; SIGKILL where that takes more than 10 s."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def _read_settings(self) -> StripeSettings:
        """What it prints first, once it accepts connections."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                line = log.readline()
            if line.endswith(b"\n") and line.startswith(b"{"):
                return StripeSettings.from_env(json.loads(line))
            time.sleep(_LOOK_SECONDS)
        self.kill()
        raise RuntimeError(f"the payment sandbox did not start: {tail(self._log)}")
