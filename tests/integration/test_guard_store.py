"""The guard against real servers, broken as in July 2013 and otherwise: each is named within one look."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import pytest
from guard_harness import Factory, Guarded, until, until_refused

from billing.guard.memory import CALM_LOOKS
from billing.guard.watch import Watcher
from billing.ledger.incarnations import Identity

QUICK = {"repl-diskless-sync-delay": "0"}  # replicas are served at once


@pytest.fixture
async def store(private_valkey: Factory) -> Guarded:
    """A healthy one: the guard has looked once."""
    guarded = await Guarded(private_valkey(config=QUICK)).filled()
    verdict = await guarded.look()
    assert verdict.findings == (), verdict.findings
    return guarded


async def until_linked(replica: Guarded) -> None:
    """Its first synchronisation is done."""

    async def linked() -> bool:
        async with replica.connect() as client:
            return (await client.info("replication")).get("master_link_status") == "up"

    await until(linked)


# --- July 2013 -----------------------------------------------------------------------------------------------------


async def test_s08_s44_replica_of_itself_is_named_within_one_look(store: Guarded) -> None:
    await store.do("REPLICAOF", "127.0.0.1", store.server.port)
    verdict = await store.look()
    assert verdict.reasons == ("replica_of_itself", "replica", "read_only")
    assert verdict.seen["master_port"] == store.server.port
    await store.do("REPLICAOF", "NO", "ONE")
    assert (await store.look()).healthy


async def test_s44_replica_of_itself_by_another_name(store: Guarded) -> None:
    await store.do("REPLICAOF", "localhost", store.server.port)
    assert "replica_of_itself" in (await store.look()).reasons


async def test_s08_flushed_store_is_named_within_one_look(store: Guarded) -> None:
    await store.do("FLUSHALL")
    verdict = await store.look()
    assert verdict.reasons == ("empty",)
    assert verdict.seen["keys"] == 0
    await store.do("FUNCTION", "FLUSH")
    assert (await store.look()).reasons == ("empty", "functions_missing")


async def test_s08_s44_restart_with_the_wrong_config_file_comes_up_empty_and_is_named(store: Guarded) -> None:
    """It looks for its data where there is none, without AOF, and as a replica of itself."""
    store.server.config.update(appendonly="no", appenddirname="elsewhere", replicaof=f"127.0.0.1 {store.server.port}")
    await store.server.restart_async()
    verdict = await store.look()
    assert verdict.reasons == (
        *("replica_of_itself", "replica", "read_only", "empty", "functions_missing", "persistence_off"),
    )
    assert verdict.warnings == ("run_id_changed",)


async def test_s09_empty_restart_empties_the_replica_too(private_valkey: Factory, store: Guarded) -> None:
    await store.do("CONFIG", "SET", "appendonly", "no")
    replica = Guarded(private_valkey())
    await replica.do("REPLICAOF", "127.0.0.1", store.server.port)
    await until_linked(replica)
    assert (await replica.look()).reasons == ("replica", "read_only")  # it has everything
    store.server.config["appendonly"] = "no"
    await store.server.restart_async()

    async def emptied() -> bool:
        return await replica.do("DBSIZE") == 0

    await until(emptied)
    assert "empty" in (await store.look()).reasons
    await replica.do("REPLICAOF", "NO", "ONE")
    assert "empty" in (await replica.look()).reasons  # promoted, it is no better


async def test_s09_filled_again_by_other_means_it_is_not_the_ledgers_store(store: Guarded) -> None:
    await store.do("FLUSHALL")
    await store.filled(incarnation=6)
    verdict = await store.look()
    assert verdict.reasons == ("incarnation",)
    assert "expects 7" in verdict.reason


# --- configuration ---------------------------------------------------------------------------------------------------


async def test_s44_aof_switched_off_refuses_and_is_against_the_file(store: Guarded) -> None:
    await store.do("CONFIG", "SET", "appendonly", "no")
    verdict = await store.look()
    assert (verdict.reasons, verdict.warnings) == (("persistence_off",), ("config_file_differs",))


async def test_s44_config_set_without_rewrite_warns_until_it_is_rewritten(store: Guarded) -> None:
    await store.do("CONFIG", "SET", "save", "900 1 300 10")
    await store.do("CONFIG", "SET", "min-replicas-to-write", 0, "maxmemory-policy", "noeviction")
    verdict = await store.look()
    assert (verdict.healthy, verdict.warnings) == (True, ("config_file_differs",))
    assert [str(found) for found in verdict.findings] == [
        "config_file_differs: save is '900 1 300 10', the file has ''"
    ]
    await store.do("CONFIG", "REWRITE")
    assert (await store.look()).findings == ()


async def test_s44_file_changed_under_a_running_server(store: Guarded) -> None:
    """The trap laid before the restart that springs it."""
    text = store.server.config_file.read_text().replace("appendonly yes", "appendonly no")
    store.server.config_file.write_text(text + f"replicaof 127.0.0.1 {store.server.port}\n")
    verdict = await store.look()
    assert verdict.warnings == ("config_file_differs",)
    assert "appendonly is 'yes', the file has 'no'; replicaof is ''" in str(verdict.findings[0])


async def test_s44_servers_defaults_are_known(private_valkey: Factory) -> None:
    """A file that says nothing, and a server that runs on its defaults: no difference, snapshots are persistence."""
    store = await Guarded(private_valkey()).filled()
    own = [line for line in store.server.config_file.read_text().splitlines() if line.split()[0] in ("port", "dir")]
    store.server.config.clear()
    await store.server.restart_async()
    store.server.config_file.write_text("\n".join(own))
    assert (await store.filled()) is store
    assert (await store.look()).findings == ()


async def test_maxmemory_policy_and_full_memory(store: Guarded) -> None:
    await store.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert (await store.look()).reasons == ("maxmemory_policy",)
    await store.do("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 100_000)
    verdict = await store.look()
    assert verdict.reasons == ("read_only",)
    assert "OOM" in verdict.reason


async def test_a_failed_snapshot_that_stops_writes_is_read_only(private_valkey: Factory) -> None:
    store = await Guarded(private_valkey(config={"save": "3600 1", "appendonly": "no"})).filled()
    shutil.rmtree(store.server.directory / "data")
    await store.do("BGSAVE")

    async def failed() -> bool:
        async with store.connect() as client:
            return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await until(failed)
    verdict = await store.look()
    assert (verdict.reasons, verdict.warnings) == (("read_only",), ("persistence_failing",))
    assert "MISCONF" in verdict.reason


async def test_what_the_user_may_not_ask_is_a_note(store: Guarded) -> None:
    await store.do("ACL", "SETUSER", "looker", "on", ">secret", "~*", "+@all", "-config", "-client")
    store.url = f"redis://looker:secret@127.0.0.1:{store.server.port}/0"
    verdict = await store.look()
    assert verdict.healthy
    assert [found.finding.value for found in verdict.findings] == ["not_checkable"]
    await store.do("ACL", "SETUSER", "other", "on", ">secret", "~*", "+@all", "-info")
    store.url = f"redis://other:secret@127.0.0.1:{store.server.port}/0"
    verdict = await store.look()
    assert verdict.reasons == ("away",)
    assert "secret" not in str(verdict)
    store.url = f"redis://other:wrong@127.0.0.1:{store.server.port}/0"
    assert (await store.look()).reasons == ("away",)


# --- which server is this? ------------------------------------------------------------------------------------------


async def test_s44_replica_of_another_is_named(private_valkey: Factory, store: Guarded) -> None:
    other = private_valkey()
    await store.do("REPLICAOF", "127.0.0.1", other.port)
    verdict = await store.look()
    assert verdict.reasons[:2] == ("replica", "read_only")
    assert "replica_of_itself" not in verdict.reasons
    await store.do("REPLICAOF", "192.0.2.1", store.server.port)  # its own port, elsewhere
    assert (await store.look()).reasons[:2] == ("replica", "read_only")


async def test_s49_isolated_old_primary_that_wants_replicas_is_refused(private_valkey: Factory, store: Guarded) -> None:
    replica = Guarded(private_valkey())
    await replica.do("REPLICAOF", "127.0.0.1", store.server.port)
    await store.do("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", 1)
    await store.do("CONFIG", "REWRITE")

    async def linked() -> bool:
        return (await store.look()).healthy

    await until(linked)
    await replica.do("REPLICAOF", "NO", "ONE")  # the failover: the old one is cut off

    async def refused() -> bool:
        return (await store.look()).reasons == ("read_only",)

    await until(refused)


async def test_s49_isolated_old_primary_is_another_server_in_an_older_state(
    private_valkey: Factory, store: Guarded
) -> None:
    """The address leads to the new primary, then back to the isolated old one."""
    old, new = store.server, private_valkey()
    store.server = new
    await store.filled(offset=40)  # promoted, and further by now
    verdict = await store.look()
    assert (verdict.reasons, verdict.warnings) == ((), ("run_id_changed",))
    store.server = old
    verdict = await store.look()
    assert (verdict.reasons, verdict.warnings) == (("rewound",), ("run_id_changed",))


async def test_s49_old_primary_after_a_rebuild_elsewhere_has_the_wrong_incarnation(
    private_valkey: Factory, store: Guarded
) -> None:
    old, store.server = store.server, private_valkey()
    await store.filled(incarnation=8)
    store.identity = replace(store.identity, incarnation=8)
    assert (await store.look()).healthy
    store.server = old
    assert (await store.look()).reasons == ("incarnation",)


async def test_a_restart_that_lost_nothing_warns_until_ten_healthy_looks(store: Guarded) -> None:
    before = (await store.look()).seen["run_id"]
    await store.server.restart_async()
    for _ in range(CALM_LOOKS):
        verdict = await store.look()
        assert (verdict.healthy, verdict.warnings) == (True, ("run_id_changed",))
        assert str(before) in str(verdict.findings[0])
    assert (await store.look()).findings == ()


# --- state of the store ----------------------------------------------------------------------------------------------


async def test_states_of_partitions_are_named(store: Guarded) -> None:
    meta = "guarded:{p1}:meta"
    await store.do("HSET", meta, "torn", "1")
    assert (await store.look()).reasons == ("torn",)
    await store.do("HSET", meta, "halted", "log below the position")
    verdict = await store.look()
    assert verdict.reason == "halted: partition 1 of 2: log below the position"
    await store.do("DEL", meta)
    assert (await store.look()).reasons == ("empty",)


async def test_lost_keys_are_named(store: Guarded) -> None:
    await store.do("DEL", "guarded:{p0}:7:pos")
    assert (await store.look()).reasons == ("lost",)


async def test_rebuilding_is_named_and_ends(store: Guarded) -> None:
    store.identity = replace(store.identity, incarnation=8)
    await store.rebuilt(8, finished=False)
    assert (await store.look()).reasons == ("rebuilding",)
    await store.rebuilt(9)
    store.identity = replace(store.identity, incarnation=9)
    assert (await store.look()).healthy


async def test_s14_s28_other_functions_timeline_or_partitions_are_named(store: Guarded) -> None:
    store.identity = Identity("t2", 2, 7)
    assert (await store.look()).reasons == ("timeline",)
    store.identity = Identity("t1", 3, 7)
    assert (await store.look()).reasons == ("empty",)  # the third partition
    store.identity = Identity("t1", 2, None)
    assert (await store.look()).reasons == ("incarnation",)
    store.identity = Identity("t1", 2, 7)
    await store.do("HSET", "guarded:{p0}:meta", "version", "0")
    assert (await store.look()).reasons == ("version",)


# --- away ------------------------------------------------------------------------------------------------------------


async def test_s08_a_server_that_is_gone_or_hangs_is_away(store: Guarded) -> None:
    store.server.pause()
    verdict = await store.look()
    assert (verdict.reasons, verdict.seen) == (("away",), {"away": "no answer within 1 s"})
    store.server.resume()
    assert (await store.look()).healthy
    store.server.kill()
    assert (await store.look()).reasons == ("away",)


async def test_r11_a_watcher_that_stands_still_turns_stale(private_valkey: Factory) -> None:
    clock = [100.0]
    store = await Guarded(private_valkey()).filled()
    store.guard.clock = lambda: clock[0]
    watcher = Watcher(store.guard)
    assert watcher.verdict().reasons == ("stale",)
    await watcher.look()
    clock[0] += 5.0
    assert watcher.verdict().healthy
    clock[0] += 0.1
    assert watcher.verdict().reasons == ("stale",)


async def test_a_watcher_notices_within_two_seconds(store: Guarded) -> None:
    watcher = Watcher(store.guard)
    task = asyncio.create_task(watcher.run())
    try:

        async def healthy() -> bool:
            return watcher.verdict().healthy

        await until(healthy)
        await store.do("FLUSHALL")
        assert await until_refused(watcher) == ("empty",)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
