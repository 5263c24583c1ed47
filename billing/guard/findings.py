"""What the guard can find, in the order in which it is reported, and what to do about each. Pure.

The advice never is to restart a loaded primary: in July 2013 that restart lost every balance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """REFUSES: no charge, no suspension. WARNS: somebody should act before it hurts. NOTES: worth knowing,
    or could not be checked."""

    REFUSES = "refuses"
    WARNS = "warns"
    NOTES = "notes"


class Finding(StrEnum):
    """Every finding, in its fixed order of precedence; also the label of its metric."""

    STALE = "stale"
    AWAY = "away"
    LEDGER_UNKNOWN = "ledger_unknown"
    UNSUPPORTED_SERVER = "unsupported_server"
    LOADING = "loading"
    REPLICA_OF_ITSELF = "replica_of_itself"
    REPLICA = "replica"
    READ_ONLY = "read_only"
    EMPTY = "empty"
    FUNCTIONS_MISSING = "functions_missing"
    VERSION = "version"
    TIMELINE = "timeline"
    INCARNATION = "incarnation"
    HALTED = "halted"
    REBUILDING = "rebuilding"
    TORN = "torn"
    LOST = "lost"
    UNAVAILABLE = "unavailable"
    REWOUND = "rewound"
    PERSISTENCE_OFF = "persistence_off"
    MAXMEMORY_POLICY = "maxmemory_policy"
    PERSISTENCE_FAILING = "persistence_failing"
    EVICTED = "evicted"
    RUN_ID_CHANGED = "run_id_changed"
    CONFIG_FILE_DIFFERS = "config_file_differs"
    REPLICA_CHAIN = "replica_chain"
    LEAST_STALE = "least_stale"
    NOT_CHECKABLE = "not_checkable"

    @property
    def severity(self) -> Severity:
        return _SEVERITY.get(self, Severity.REFUSES)

    @property
    def advice(self) -> str:
        """What to do, in words for the person on call."""
        return _ADVICE[self]


@dataclass(frozen=True, slots=True)
class Found:
    """One finding and what was seen."""

    finding: Finding
    detail: str

    def __str__(self) -> str:
        return f"{self.finding}: {self.detail}"


_SEVERITY = {
    Finding.PERSISTENCE_FAILING: Severity.WARNS,
    Finding.EVICTED: Severity.WARNS,
    Finding.RUN_ID_CHANGED: Severity.WARNS,
    Finding.CONFIG_FILE_DIFFERS: Severity.WARNS,
    Finding.REPLICA_CHAIN: Severity.WARNS,
    Finding.LEAST_STALE: Severity.NOTES,
    Finding.NOT_CHECKABLE: Severity.NOTES,
}

_ADVICE = {
    Finding.STALE: (
        "The guard itself does not get to look: see the log of this process; nothing is charged meanwhile."
    ),
    Finding.AWAY: (
        "Check network and address. If the server hangs under load, fail over to a replica; do not restart a "
        "loaded primary."
    ),
    Finding.LEDGER_UNKNOWN: (
        "Without the ledger nobody knows which balances to expect: bring PostgreSQL back, or run billing migrate."
    ),
    Finding.UNSUPPORTED_SERVER: ("Use Redis 7.2 or newer, or Valkey: add a replica of that version, then fail over."),
    Finding.LOADING: (
        "Wait: it reads its data from disk. If a replica has the data, fail over to it. Do not restart it."
    ),
    Finding.REPLICA_OF_ITSELF: (
        "It follows its own address, so it never synchronises and refuses writes. REPLICAOF NO ONE makes it a"
        " primary again; correct replicaof in its config file (CONFIG REWRITE), then look again."
    ),
    Finding.REPLICA: (
        "Point BILLING_REDIS_URL at the primary. If there is none, promote the replica that is least behind."
    ),
    Finding.READ_ONLY: (
        "Balances cannot be written, so nothing may be charged. Clear what the detail names. Do not restart "
        "it: fail over to a replica that has the data (SENTINEL FAILOVER, CLUSTER FAILOVER)."
    ),
    Finding.EMPTY: (
        "Balances are gone, which is not zero. First find out why (wrong config file, directory, FLUSHALL), "
        "and whether a replica still has them: then fail over. Else load the functions (billing migrate) and "
        "fill it anew from the ledger and the log: billing rebuild."
    ),
    Finding.FUNCTIONS_MISSING: (
        "The server started without its data, or was flushed. Find out why, then load the functions (billing "
        "migrate) and, where balances are gone, billing rebuild."
    ),
    Finding.VERSION: (
        "Another build wrote this store, or loaded its functions: run one build everywhere, billing migrate, "
        "and billing rebuild where the store's own version differs."
    ),
    Finding.TIMELINE: (
        "The store belongs to another ledger, or the ledger was restored. Reconcile the gateway's charges "
        "first. Then: billing rebuild."
    ),
    Finding.INCARNATION: (
        "This is not the store that the ledger filled last: an old primary, a restored copy, another server. "
        "Find the right one; if it is gone, fill this one from the ledger and the log: billing rebuild."
    ),
    Finding.HALTED: (
        "A partition was halted because log and store do not agree. Read the reason. Fill it anew from the "
        "ledger and the log: billing rebuild."
    ),
    Finding.REBUILDING: "A rebuild is running, or was interrupted: let it finish, or run billing rebuild again.",
    Finding.TORN: "A batch was half applied. Fill it anew from the ledger and the log: billing rebuild.",
    Finding.LOST: (
        "Keys of the store are missing (evicted, deleted, damaged). Fill it anew from the ledger and the log:"
        " billing rebuild."
    ),
    Finding.UNAVAILABLE: ("Some partitions gave no answer. Look again; if it lasts, see the server's log and slowlog."),
    Finding.REWOUND: (
        "It shows an older state than before: a failover to a replica that was behind, a truncated AOF, or "
        "the isolated old primary. The consumers replay the rest; if it does not pass, check which server "
        "this is."
    ),
    Finding.PERSISTENCE_OFF: (
        "A restart would come up empty and empty its replicas. CONFIG SET appendonly yes, then CONFIG "
        "REWRITE. Do not restart it before that."
    ),
    Finding.MAXMEMORY_POLICY: (
        "The server may throw balances away: CONFIG SET maxmemory-policy noeviction, CONFIG REWRITE."
    ),
    Finding.PERSISTENCE_FAILING: (
        "Check disk space and the server's log, then BGREWRITEAOF or BGSAVE. Do not restart it: fail over to "
        "a replica that has the data (SENTINEL FAILOVER, CLUSTER FAILOVER)."
    ),
    Finding.EVICTED: (
        "Keys were evicted since the server started: give it memory, set maxmemory-policy noeviction; run "
        "billing reconcile."
    ),
    Finding.RUN_ID_CHANGED: (
        "The server was restarted, or another one answers. The data fits what the ledger expects. Primaries "
        "are not to be restarted: find out who did, and fail over next time."
    ),
    Finding.CONFIG_FILE_DIFFERS: (
        "A restart would take the file's values (CONFIG SET without CONFIG REWRITE, or a wrong file). CONFIG "
        "REWRITE keeps the running ones; look at both first."
    ),
    Finding.REPLICA_CHAIN: (
        "Replicas under a broken link fall behind, and all that follow them: correct REPLICAOF there, or replace the "
        "server. One that is a primary of its own may be a second store: find out who writes to it."
    ),
    Finding.LEAST_STALE: (
        "If it comes to a failover, promote the first, and none that shows less of the log: the consumers replay what "
        "is missing, however far back, but balances are old until they have. Point those that follow the old primary, "
        "however indirectly, at the new one."
    ),
    Finding.NOT_CHECKABLE: "Allow the guard's user INFO, CONFIG GET and CLIENT INFO, or check by hand.",
}
