"""When each finding holds: one rule each, in the order of `Finding`. Pure.

A rule answers what it saw, or None. Values that could not be asked are no finding: `not_checkable` says so once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from billing.balance.address import Host
from billing.balance.balances import PartitionView, Unknown
from billing.guard.chain import NodeSeen, candidates, faults, furthest, lag_records, named, path
from billing.guard.expected import Expected, Persistence
from billing.guard.findings import Finding
from billing.guard.memory import Memory
from billing.guard.observation import Observation

Rule: TypeAlias = Callable[[Observation, Expected, Memory], str | None]

_OF_READER = {
    "empty": Finding.EMPTY,
    "functions missing": Finding.FUNCTIONS_MISSING,
    "version": Finding.VERSION,
    "timeline": Finding.TIMELINE,
    "incarnation": Finding.INCARNATION,
    "halted": Finding.HALTED,
    "rebuilding": Finding.REBUILDING,
    "torn": Finding.TORN,
    "lost": Finding.LOST,
}
"""What the balance reader calls a partition's trouble; everything else is `unavailable`."""


_FAILOVER = {
    *(Finding.AWAY, Finding.LOADING, Finding.REPLICA_OF_ITSELF, Finding.REPLICA, Finding.READ_ONLY, Finding.EMPTY),
    *(Finding.FUNCTIONS_MISSING, Finding.INCARNATION, Finding.LOST, Finding.TORN, Finding.UNAVAILABLE),
}
MOST_CANDIDATES = 5


def _loading(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    if seen.number("loading"):
        return f"reading its data from disk, {seen.text('loading_loaded_perc') or '?'} % done"
    return "a replica swapping data sets" if seen.number("async_loading") else None


def _itself(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    if not seen.of_itself:
        return None
    return f"its primary is its own address, {_primary(seen)}, link {seen.text('master_link_status') or '?'}"


def _replica(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    if seen.text("role") != "slave":
        return None
    said = f"a replica of {_primary(seen)}, link {seen.text('master_link_status') or '?'}"
    above = path(_above(seen), seen.around)[1:]
    return f"{said}, which follows {', then '.join(map(named, above))}" if above else said


def _read_only(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    """The reasons for which the server refuses writes, as its source has them."""
    wanted, good = _whole(seen.setting("min-replicas-to-write")), seen.number("min_slaves_good_slaves", -1)
    used, limit = seen.number("used_memory") - seen.number("mem_not_counted_for_evict"), seen.number("maxmemory")
    snapshots_stop_it = seen.setting("stop-writes-on-bgsave-error") == "yes" and seen.setting("save") != ""
    failover = seen.text("master_failover_state")
    causes = (
        (seen.text("role") == "slave" and seen.number("slave_read_only", 1), "READONLY: a read-only replica"),
        (0 <= good < wanted, f"NOREPLICAS: {good} good replicas, min-replicas-to-write is {wanted}"),
        (seen.number("aof_enabled") and _bad(seen, "aof_last_write_status"), "MISCONF: a write to the AOF failed"),
        (
            snapshots_stop_it and _bad(seen, "rdb_last_bgsave_status"),
            "MISCONF: the last snapshot failed, and stop-writes-on-bgsave-error is yes",
        ),
        (0 < limit < used, f"OOM: {used} bytes in use, maxmemory is {limit}"),
        (failover not in ("", "no-failover"), f"a failover is under way: {failover}"),
    )
    return next((cause for holds, cause in causes if holds), None)


def _empty(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    return "the server has no keys at all" if seen.keys == 0 else _partitions(seen, Finding.EMPTY)


def _rewound(seen: Observation, _expected: Expected, memory: Memory) -> str | None:
    behind = memory.behind(seen.partitions)
    return f"behind what an earlier look saw: {_listed(behind)}" if behind else None


def _persistence_off(seen: Observation, expected: Expected, _memory: Memory) -> str | None:
    if expected.persistence is Persistence.OFF or "aof_enabled" not in seen.info or seen.number("aof_enabled"):
        return None
    if expected.persistence is Persistence.AOF:
        return "the AOF is off"
    return "the AOF is off, and no snapshots are made" if seen.setting("save") == "" else None


def _maxmemory_policy(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    policy = seen.text("maxmemory_policy")
    return f"maxmemory-policy is {policy}" if policy not in ("", "noeviction") else None


def _persistence_failing(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    fields = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    failed = [f"{name} is {seen.text(name)}" for name in fields if _bad(seen, name)]
    return ", ".join(failed) or None


def _evicted(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    evicted = seen.number("evicted_keys")
    return f"{evicted} keys since the server started" if evicted else None


def _run_id(seen: Observation, _expected: Expected, memory: Memory) -> str | None:
    return f"{memory.changed_from} before, {seen.text('run_id')} now" if memory.changed_from else None


def _file(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    said = [f"{name} is {running!r}, the file has {file!r}" for name, running, file in seen.file.differs]
    return "; ".join(said) or None


def _replica_chain(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    above = path(_above(seen), seen.around) if seen.text("role") == "slave" else ()
    return "; ".join(faults(seen.around, above)) or None


def _least_stale(seen: Observation, expected: Expected, memory: Memory) -> str | None:
    if not wants_failover(seen, expected, memory):
        return None
    able = candidates(seen.around)
    asked = {partition for node in able for partition in node.partitions}
    newest = furthest(able, {key[1]: before for key, before in memory.positions.items() if key[1] in asked})
    return ", then ".join(_candidate(node, newest) for node in able[:MOST_CANDIDATES]) or None


def _candidate(node: NodeSeen, newest: Mapping[int, Mapping[str, int]]) -> str:
    behind = lag_records(node, newest) if newest else None
    if behind is not None:
        said = f"{behind} records behind the newest seen"
    else:
        known = sum(isinstance(view, PartitionView) for view in node.partitions.values())
        said = f"{known} partitions readable" if node.partitions else f"replication offset {node.offset}"
    follows = "a primary" if node.follows is None else f"follows {named(node.follows)}, link {node.link or '?'}"
    return f"{named(node.host)} ({said}; {follows})"


def wants_failover(seen: Observation, expected: Expected, memory: Memory) -> bool:
    """Whether somebody may have to choose another server."""
    return any(rule(seen, expected, memory) is not None for finding, rule in RULES if finding in _FAILOVER)


def _not_checkable(seen: Observation, _expected: Expected, _memory: Memory) -> str | None:
    missing = [seen.file.unchecked] if seen.file.unchecked else []
    if seen.config is None and seen.info:
        missing.insert(0, "running values (CONFIG GET is not permitted)")
    return ", ".join(missing) or None


def of_reader(finding: Finding) -> Rule:
    """Partitions for which the balance reader says so."""
    return lambda seen, _expected, _memory: _partitions(seen, finding)


RULES: tuple[tuple[Finding, Rule], ...] = (
    (Finding.AWAY, lambda seen, _expected, _memory: seen.away or None),
    (Finding.LEDGER_UNKNOWN, lambda seen, _expected, _memory: seen.ledger or None),
    (Finding.UNSUPPORTED_SERVER, lambda seen, _expected, _memory: seen.unsupported or None),
    (Finding.LOADING, _loading),
    (Finding.REPLICA_OF_ITSELF, _itself),
    (Finding.REPLICA, _replica),
    (Finding.READ_ONLY, _read_only),
    (Finding.EMPTY, _empty),
    (Finding.FUNCTIONS_MISSING, of_reader(Finding.FUNCTIONS_MISSING)),
    (Finding.VERSION, of_reader(Finding.VERSION)),
    (Finding.TIMELINE, of_reader(Finding.TIMELINE)),
    (Finding.INCARNATION, of_reader(Finding.INCARNATION)),
    (Finding.HALTED, of_reader(Finding.HALTED)),
    (Finding.REBUILDING, of_reader(Finding.REBUILDING)),
    (Finding.TORN, of_reader(Finding.TORN)),
    (Finding.LOST, of_reader(Finding.LOST)),
    (Finding.UNAVAILABLE, of_reader(Finding.UNAVAILABLE)),
    (Finding.REWOUND, _rewound),
    (Finding.PERSISTENCE_OFF, _persistence_off),
    (Finding.MAXMEMORY_POLICY, _maxmemory_policy),
    (Finding.PERSISTENCE_FAILING, _persistence_failing),
    (Finding.EVICTED, _evicted),
    (Finding.RUN_ID_CHANGED, _run_id),
    (Finding.CONFIG_FILE_DIFFERS, _file),
    (Finding.REPLICA_CHAIN, _replica_chain),
    (Finding.LEAST_STALE, _least_stale),
    (Finding.NOT_CHECKABLE, _not_checkable),
)
"""`stale` is missing here: it is the watcher's, about a verdict and not about an observation."""


def _partitions(seen: Observation, finding: Finding) -> str | None:
    troubled = {
        partition: view
        for partition, view in sorted(seen.partitions.items())
        if isinstance(view, Unknown) and _OF_READER.get(view.reason, Finding.UNAVAILABLE) is finding
    }
    if not troubled:
        return None
    first = next(iter(troubled.values()))
    said = f": {first.detail}" if first.detail else ""
    return f"{_listed(list(troubled))} of {len(seen.partitions)}{said}"


def _bad(seen: Observation, status: str) -> bool:
    """Whether a status of INFO is there and is not ok."""
    return seen.text(status) not in ("", "ok")


def _listed(partitions: list[int]) -> str:
    """At most ten by number: a verdict is stored with every charge."""
    more = f" and {len(partitions) - 10} more" if len(partitions) > 10 else ""
    return f"partition {', '.join(map(str, partitions[:10]))}{more}"


def _primary(seen: Observation) -> str:
    return named(_above(seen))


def _above(seen: Observation) -> Host:
    """What it follows, where it is a replica."""
    return seen.text("master_host"), seen.number("master_port")


def _whole(value: str | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
