"""What can go wrong with the local services, as one line for a person."""

from __future__ import annotations


class DevStackError(RuntimeError):
    """A service cannot be started or stopped; the message is one line and names the service and the reason."""


class AddressInUse(DevStackError):
    """Another program took the port between its choice and the server's bind: choose again."""
