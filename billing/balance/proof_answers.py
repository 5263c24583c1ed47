"""What a write proof asks for and answers: a closed set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from billing.balance.records import Status
from billing.stream.sink import Owner

WAIT_MS = 2_000


class ProofRefusal(StrEnum):
    """Why a proof is refused. Each means: do not charge; look again later."""

    NO_ACCOUNT = "no_account"
    UNKNOWN = "unknown"  # the account's balance is not known (R1); detail: why
    INCARNATION = "incarnation"  # not the one that the ledger expects, or none; detail: which
    TIMELINE = "timeline"
    NOT_READY = "not_ready"  # torn, lost, being rebuilt, empty; detail: which
    HALTED = "halted"
    VERSION = "version"  # another function version, partition count or dedupe generation
    READ_ONLY = "read_only"  # a replica, or a server that cannot write; detail: its error code
    NOT_PRIMARY = "not_primary"  # the new connection found a replica
    REPLICAS = "replicas"  # too few acknowledged the write in time
    AOF = "aof"  # the write is not in the append-only file, or there is none
    RUN_ID = "run_id"  # the new connection found another server
    MARKER = "marker"  # the marker is not there any more
    BEHIND = "behind"  # positions are behind the signal's, or behind the first reading


@dataclass(frozen=True, slots=True)
class Expected:
    """What the store must be, by the ledger: incarnation and timeline. `usage_position` is the signal's, in the
    account's home partition; 0 where no signal asked."""

    incarnation: int
    timeline: str
    usage_position: int = 0


@dataclass(frozen=True, slots=True)
class Durability:
    """How far the marker must have come: `replicas` that acknowledged it, and with `aof` the server's own append-only
    file (fsync). Both are waited for at most `wait_ms`."""

    replicas: int = 0
    aof: bool = False
    wait_ms: int = WAIT_MS


NO_WAIT = Durability()


@dataclass(frozen=True, slots=True)
class Proved:
    """The balance as the second reading saw it; amounts in micro-units. `level_micros` is what is compared with the
    threshold. `run_id` is the server process that both connections reached."""

    level_micros: int
    credit_micros: int
    used_micros: int
    held_micros: int
    excluded_micros: int
    status: Status
    ledger_seq: int
    incarnation: int
    owner: Owner
    usage_position: int
    entries_position: int
    log_time_ms: int
    run_id: str
    replicas_acknowledged: int


@dataclass(frozen=True, slots=True)
class ProofRefused:
    """Nothing is proved, and the store said why; `detail` is for people."""

    reason: ProofRefusal
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProofUnavailable:
    """No answer in time, or the connection broke: nothing is known, so nothing is proved."""

    reason: str


ProofAnswer: TypeAlias = Proved | ProofRefused | ProofUnavailable
