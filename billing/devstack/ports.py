"""Free ports on loopback, below the range that outgoing connections use.

Inside that range a client that keeps reconnecting to a stopped local server can end up connected to itself, and an
outgoing connection can take a stopped server's port. A free port is only likely still free when the server binds
it: starters try again on `AddressInUse`.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from billing.devstack.errors import DevStackError

LOOPBACK = "127.0.0.1"
LOWEST = 15000
TRIES = 200


def free_port() -> int:
    """A port that nothing on loopback listens on now."""
    ceiling = _first_ephemeral()
    for _ in range(TRIES):
        port = random.randrange(LOWEST, ceiling)
        if is_free(port):
            return port
    raise DevStackError(f"found no free port between {LOWEST} and {ceiling} in {TRIES} tries")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32768
    return first if first > LOWEST + 5000 else 65535
