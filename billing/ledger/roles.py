"""Two roles: the owner migrates, archives and begins timelines; the runtime role does everything else and can change
nothing booked (R6).

The runtime role is the user of BILLING_POSTGRES_DSN. `billing migrate`, as the owner (BILLING_POSTGRES_OWNER_DSN),
makes it where it does not exist and grants it exactly what stands here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from billing.ledger.database import Connection
from billing.ledger.queries import query

GRANTS: Mapping[str, str] = {
    "catalogue_clock": "select, update",
    "positions": "select, update (next_offset, fingerprint, log_time_ms, epoch, nonce, halted)",
    # its terms; never its currency, nor where in the log it is
    "accounts": "select, insert, update (plan, credit_limit_micros, recharge_below_micros, recharge_by_micros,"
    " daily_cap_micros, customer, payment_method, status)",
    # the money itself is moved by postings alone
    "balances": "select, insert, update (excluded_micros, ledger_seq)",
    "outbox": "select, insert, delete",
    "catalogue_outbox": "select, insert, delete",
    "recharge_transitions": "select",
    "recharge_due": "select, insert, update, delete",
    "recharge_episodes": "select, insert, update",
    "recharge_intents": "select, insert, update",
    "recharge_evaluations": "select, insert, update",
    "recharge_breaker": "select, insert, update",
    "recharge_switch": "select, insert, update",
    "recharge_freezes": "select, insert, update",
    "recharge_cards": "select, insert, update",
    "recharge_forgiven": "select, insert, update",
}
"""What is not append-only. A table with the trigger `append_only` is `select, insert`, any other one `select`."""

OWNERS_ALONE = frozenset(
    {
        *("usage_archives", "archived_accounts", "archived_settlements", "archived_archives"),
        *("partition_migrations", "account_moves"),
    }
)
"""Append-only tables that only the owner writes."""

_APPEND_ONLY = "select, insert"
_READ_ONLY = "select"
_ITERATIONS = 4096


@dataclass(frozen=True, slots=True)
class Granted:
    """`restrained` is False where the runtime role is the owner or a superuser: then triggers alone protect the
    books."""

    role: str
    created: bool
    restrained: bool


@dataclass(frozen=True, slots=True)
class NotGranted:
    """Why the runtime role is not there; nothing was changed."""

    reason: str


async def grant_runtime(connection: Connection, runtime_dsn: str) -> Granted | NotGranted:
    """Make the user of `runtime_dsn` the runtime role of this ledger, inside the caller's transaction."""
    parts = urlsplit(runtime_dsn)
    role = unquote(parts.username or "")
    if not role:
        return NotGranted("BILLING_POSTGRES_DSN names no user, so that nothing can be granted to it")
    me = await connection.fetchrow(query("roles.me"))
    assert me is not None
    if role == me["name"]:
        return Granted(role, created=False, restrained=False)
    found = await connection.fetchrow(query("roles.find"), role)
    if found is None and not me["may_create"]:
        return NotGranted(f"there is no role {role}, and {me['name']} may not create it")
    if found is None:
        await connection.execute(await _statement(connection, role, unquote(parts.password or "")))
    for statement in await _grants(connection, role):
        await connection.execute(statement)
    return Granted(role, created=found is None, restrained=found is None or not found["superuser"])


async def _statement(connection: Connection, role: str, password: str) -> str:
    if not password:
        return str(await connection.fetchval("select format('create role %I login', $1::text)", role))
    made = await connection.fetchval(
        "select format('create role %I login password %L', $1::text, $2::text)", role, scram_verifier(password)
    )
    return str(made)


async def _grants(connection: Connection, role: str) -> list[str]:
    """In the order in which they are to be executed. Names are ours, or quoted by the server."""
    rows = await connection.fetch(query("roles.tables"))
    where = await connection.fetchrow(query("roles.names"), role)
    assert where is not None
    schema, quoted = where["schema"], where["role"]
    statements = [
        f"grant usage on schema {schema} to {quoted}",
        f"revoke all on all tables in schema {schema} from {quoted}",
        f"grant usage on all sequences in schema {schema} to {quoted}",
    ]
    for row in rows:
        statements.append(f"grant {privileges(row['name'], row['append_only'])} on {row['quoted']} to {quoted}")
    return statements


def privileges(table: str, append_only: bool) -> str:
    """What the runtime role may do with a table."""
    if table in GRANTS:
        return GRANTS[table]
    return _APPEND_ONLY if append_only and table not in OWNERS_ALONE else _READ_ONLY


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL keeps of a password (RFC 5803), so that the password itself stands in no statement or log."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{shown[0]}${shown[1]}:{shown[2]}"
