"""Is a replica's primary itself? (July 2013.)"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

ADDRESSES = ("port", "tls-port", "bind", "replica-announce-ip", "replica-announce-port")
"""Running values that say at which addresses a server is found."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


async def of_itself(info: Mapping[str, Any], client: Mapping[str, Any], config: Mapping[str, str]) -> bool:
    """Whether the primary's address is one of the server's own: same port, and a host that is loopback, an address
    it listens on or announces, or the one at which it received this connection."""
    ports = {str(info.get("tcp_port", "")), *(config.get(name, "") for name in ADDRESSES if name.endswith("port"))}
    if str(info.get("master_port")) not in ports - {"", "0"}:
        return False
    own = {*_LOOPBACK, host_of(client.get("laddr")), config.get("replica-announce-ip", "")}
    own.update(address.lstrip("-") for address in config.get("bind", "").split())
    host = str(info.get("master_host", ""))
    return bool(({host} | await _resolved(host)) & (own - {"", "*", "0.0.0.0", "::*"}))


def host_of(address: object) -> str:
    """The host of "host:port", of "[v6]:port" and of v6 as the server prints it."""
    return str(address or "").rpartition(":")[0].strip("[]")


async def _resolved(host: str) -> set[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}
