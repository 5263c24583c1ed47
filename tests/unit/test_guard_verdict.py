"""The guard's verdict from what a look saw: every finding by its own cause, and their fixed order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from billing.balance.balances import PartitionView, Unknown
from billing.cli.guard import as_fields, as_lines
from billing.guard.chain import NodeSeen
from billing.guard.expected import Expected, Persistence
from billing.guard.findings import Finding, Severity
from billing.guard.memory import CALM_LOOKS, Memory
from billing.guard.observation import FileView, Observation
from billing.guard.rules import RULES
from billing.guard.verdict import GuardVerdict, judge, stale
from billing.settings import SettingError
from billing.stream.record import Position

INFO: dict[str, object] = {
    "run_id": "a",
    "role": "master",
    "loading": 0,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "evicted_keys": 0,
}
CONFIG = {"appendonly": "yes", "save": "", "min-replicas-to-write": "0", "stop-writes-on-bgsave-error": "yes"}


def view(offset: int = 10, incarnation: str = "3") -> PartitionView:
    return PartitionView(incarnation, {"usage.events": Position(offset, "f")}, 0, 0, 1, 0, 0, 0)


HEALTHY = Observation(
    server="valkey 9.1.2", info=INFO, config=CONFIG, keys=20, timeline="t", incarnation=3, partitions={0: view()}
)


def info(**changed: object) -> Observation:
    return replace(HEALTHY, info={**INFO, **changed})


def config(**changed: str) -> dict[str, str]:
    return {**CONFIG, **{name.replace("_", "-"): value for name, value in changed.items()}}


def unknown(reason: str, detail: str = "") -> Observation:
    return replace(HEALTHY, partitions={0: view(), 1: Unknown(reason, detail)})


def verdict_of(seen: Observation, expected: Expected | None = None, memory: Memory | None = None) -> GuardVerdict:
    return judge(seen, expected or Expected(), memory or Memory(), at_s=0.0)[0]


def names(verdict: GuardVerdict) -> list[str]:
    return [found.finding.value for found in verdict.findings]


BROKEN = NodeSeen(("10.0.0.2", 6379), follows=("10.0.0.1", 6379), link="down", offset=7)
REPLICA = {"role": "slave", "master_host": "10.0.0.9", "master_port": 6379, "master_link_status": "up"}

CASES: list[tuple[Observation, list[str]]] = [
    (HEALTHY, []),
    (Observation(away="no answer: ConnectionError"), ["away"]),
    (replace(HEALTHY, ledger="no answer from the ledger", partitions={}), ["ledger_unknown"]),
    (replace(HEALTHY, unsupported="Redis 6.0"), ["unsupported_server"]),
    (replace(info(loading=1, loading_loaded_perc="3.1"), keys=None, partitions={}), ["loading"]),
    (info(async_loading=1), ["loading"]),
    (replace(info(**REPLICA, slave_read_only=1), of_itself=True), ["replica_of_itself", "replica", "read_only"]),
    (info(**REPLICA, slave_read_only=1), ["replica", "read_only"]),
    (info(**REPLICA, slave_read_only=0), ["replica"]),
    (replace(info(min_slaves_good_slaves=0), config=config(min_replicas_to_write="1")), ["read_only"]),
    (replace(info(min_slaves_good_slaves=1), config=config(min_replicas_to_write="1")), []),
    (info(aof_last_write_status="err"), ["read_only", "persistence_failing"]),
    (replace(info(rdb_last_bgsave_status="err"), config=config(save="60 1")), ["read_only", "persistence_failing"]),
    (
        replace(info(rdb_last_bgsave_status="err"), config=config(save="60 1", stop_writes_on_bgsave_error="no")),
        ["persistence_failing"],
    ),
    (info(rdb_last_bgsave_status="err"), ["persistence_failing"]),
    (info(maxmemory=100, used_memory=120, mem_not_counted_for_evict=10), ["read_only"]),
    (info(maxmemory=100, used_memory=120, mem_not_counted_for_evict=30), []),
    (info(master_failover_state="waiting-for-sync"), ["read_only"]),
    (replace(HEALTHY, keys=0, partitions={}), ["empty"]),
    (unknown("empty"), ["empty"]),
    (unknown("functions missing"), ["functions_missing"]),
    (unknown("version", "function version is 1, expected 2"), ["version"]),
    (unknown("timeline"), ["timeline"]),
    (unknown("incarnation"), ["incarnation"]),
    (unknown("halted", "fingerprint"), ["halted"]),
    (unknown("rebuilding"), ["rebuilding"]),
    (unknown("torn"), ["torn"]),
    (unknown("lost"), ["lost"]),
    (unknown("unavailable", "timeout"), ["unavailable"]),
    (unknown("a reason of a later build"), ["unavailable"]),
    (info(aof_enabled=0), ["persistence_off"]),
    (replace(info(aof_enabled=0), config=config(save="60 1")), []),
    (info(maxmemory_policy="allkeys-lru"), ["maxmemory_policy"]),
    (info(maxmemory_policy="volatile-lru"), ["maxmemory_policy"]),
    (info(aof_last_bgrewrite_status="err"), ["persistence_failing"]),
    (info(evicted_keys=3), ["evicted"]),
    (replace(HEALTHY, file=FileView((("appendonly", "yes", "no"),))), ["config_file_differs"]),
    (replace(HEALTHY, file=FileView(unchecked="no config file")), ["not_checkable"]),
    (replace(info(aof_enabled=0), config=None), ["not_checkable"]),
    (replace(HEALTHY, around=(BROKEN,)), ["replica_chain"]),
    (replace(HEALTHY, around=(replace(BROKEN, link="up"),)), []),
    (Observation(away="gone", around=(replace(BROKEN, link="up"),)), ["away", "least_stale"]),
]


@pytest.mark.parametrize(("seen", "expected"), CASES, ids=lambda case: "+".join(case) if isinstance(case, list) else "")
def test_s44_each_finding_is_named_by_its_own_cause(seen: Observation, expected: list[str]) -> None:
    verdict = verdict_of(seen)
    assert names(verdict) == expected
    refusing = [name for name in expected if Finding(name).severity is Severity.REFUSES]
    assert list(verdict.reasons) == refusing
    assert verdict.healthy == (not refusing)


def test_every_finding_has_a_case_a_rule_and_advice() -> None:
    by_memory = {Finding.STALE, Finding.REWOUND, Finding.RUN_ID_CHANGED}
    assert {name for _, expected in CASES for name in expected} == {f.value for f in set(Finding) - by_memory}
    assert [finding for finding, _ in RULES] == [finding for finding in Finding if finding is not Finding.STALE]
    assert all(finding.advice for finding in Finding)


def test_only_these_do_not_refuse() -> None:
    lenient = {finding.value: finding.severity.value for finding in Finding if finding.severity is not Severity.REFUSES}
    assert lenient == {
        "persistence_failing": "warns",
        "evicted": "warns",
        "run_id_changed": "warns",
        "config_file_differs": "warns",
        "replica_chain": "warns",
        "least_stale": "notes",
        "not_checkable": "notes",
    }


def test_findings_that_hold_together_come_in_their_fixed_order() -> None:
    reasons = ("unavailable", "lost", "torn", "rebuilding", "halted", "incarnation", "timeline", "version", "empty")
    seen = Observation(
        away="gone",
        ledger="gone",
        unsupported="old",
        info={
            **INFO,
            **REPLICA,
            "run_id": "b",
            "loading": 1,
            "aof_enabled": 0,
            "aof_last_bgrewrite_status": "err",
            "maxmemory_policy": "allkeys-lru",
            "evicted_keys": 1,
        },
        config=CONFIG,
        of_itself=True,
        keys=0,
        partitions={99: view(5), **{n: Unknown(reason) for n, reason in enumerate((*reasons, "functions missing"))}},
        file=FileView((("save", "", "60 1"),), "something"),
        around=(BROKEN,),
    )
    memory = Memory(run_id="a", positions={("3", 99): {"usage.events": 6}})
    assert names(verdict_of(seen, memory=memory)) == [f.value for f in Finding if f is not Finding.STALE]


@pytest.mark.parametrize(
    ("persistence", "aof", "save", "expected"),
    [
        ("on", 0, "", ["persistence_off"]),
        ("on", 0, "60 1", []),
        ("aof", 0, "60 1", ["persistence_off"]),
        ("aof", 1, "", []),
        ("off", 0, "", []),
    ],
)
def test_s44_persistence_is_held_against_what_is_expected(
    persistence: str, aof: int, save: str, expected: list[str]
) -> None:
    seen = replace(info(aof_enabled=aof), config=config(save=save))
    assert names(verdict_of(seen, Expected(Persistence(persistence)))) == expected


def test_expectations_come_from_the_environment() -> None:
    assert Expected.from_env({}).persistence is Persistence.ON
    assert Expected.from_env({"BILLING_EXPECT_PERSISTENCE": " AOF "}).persistence is Persistence.AOF
    with pytest.raises(SettingError, match="BILLING_EXPECT_PERSISTENCE must be"):
        Expected.from_env({"BILLING_EXPECT_PERSISTENCE": "yes"})


# --- from one look to the next -----------------------------------------------------------------------------------


def looks(*observations: Observation) -> list[list[str]]:
    memory, found = Memory(), []
    for seen in observations:
        verdict, memory = judge(seen, Expected(), memory, at_s=0.0)
        found.append(names(verdict))
    return found


def test_another_run_id_warns_until_enough_healthy_looks_in_a_row() -> None:
    after = info(run_id="b")
    sick = replace(after, keys=0)
    found = looks(HEALTHY, after, sick, *[after] * (CALM_LOOKS + 1), after)
    assert found[0] == []
    assert found[1] == ["run_id_changed"]
    assert found[2] == ["empty", "run_id_changed"]
    assert found[3:] == [["run_id_changed"]] * CALM_LOOKS + [[]] * 2


def test_a_server_that_was_away_between_is_still_compared_with_the_one_before() -> None:
    assert looks(HEALTHY, Observation(away="gone"), info(run_id="b"))[2] == ["run_id_changed"]
    assert looks(HEALTHY, Observation(away="gone"), HEALTHY)[2] == []


def test_s05_s49_an_older_state_of_the_same_incarnation_refuses_until_it_has_caught_up() -> None:
    at = [replace(HEALTHY, partitions={0: view(offset)}) for offset in (10, 7, 9, 10, 11)]
    assert looks(*at) == [[], ["rewound"], ["rewound"], [], []]


def test_a_new_incarnation_may_begin_anywhere() -> None:
    rebuilt = replace(HEALTHY, partitions={0: view(4, incarnation="4")})
    assert looks(HEALTHY, unknown("rebuilding"), rebuilt) == [[], ["rebuilding"], []]


# --- as it is shown ------------------------------------------------------------------------------------------------


def test_a_verdict_too_old_is_unhealthy_and_keeps_what_was_seen() -> None:
    newest = verdict_of(HEALTHY)
    old = stale(newest, "the newest look is 6.0 s old", at_s=6.0)
    assert not old.healthy
    assert old.reasons == ("stale",)
    assert old.seen == newest.seen
    assert old.reason == "stale: the newest look is 6.0 s old"


def test_words_name_the_finding_and_never_advise_a_restart() -> None:
    text = "\n".join(as_lines(verdict_of(replace(info(**REPLICA), of_itself=True))))
    assert "NOT healthy: no recharge, no suspension" in text
    assert "refuses replica_of_itself: its primary is its own address, 10.0.0.9:6379, link up" in text
    assert as_lines(verdict_of(HEALTHY)) == [
        "balance store healthy (valkey 9.1.2, master, incarnation 3, run_id a)",
    ]
    for finding in Finding:
        words = finding.advice.lower().replace("do not restart", "").replace("a restart would", "")
        assert "restart" not in words.replace("not to be restarted", "").replace("was restarted", ""), finding


def test_json_has_severity_detail_and_advice_of_each() -> None:
    fields: dict[str, Any] = as_fields(verdict_of(info(aof_enabled=0, evicted_keys=2)))
    assert fields["healthy"] is False
    assert fields["reasons"] == ["persistence_off"]
    assert fields["warnings"] == ["evicted"]
    assert [each["severity"] for each in fields["findings"]] == ["refuses", "warns"]
    assert fields["seen"]["run_id"] == "a"
