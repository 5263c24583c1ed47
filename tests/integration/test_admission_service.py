"""The admission service over HTTP against a real balance store, in health and while it is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
import usage_builders as build
from admission_harness import CALL, DEADLINE_S, Served, open_accounts, served
from guard_harness import KEYS, Factory, Guarded
from prometheus_client import REGISTRY

from billing.admission.balances import MAX_WAITING
from billing.balance import admin
from billing.balance.balances import Known
from billing.balance.calls import Functions
from billing.balance.records import AccountRecord
from billing.lab.waiting import until
from billing.rating.catalogue import LEAD_MS
from billing.usage.partitioner import home_partition
from schemas import generate

OPENAPI = json.loads((generate.FOLDER / "openapi.json").read_text(encoding="utf-8"))
HOME = home_partition(build.ACCOUNT, KEYS.partitions)


@pytest.fixture
async def guarded(private_valkey: Factory) -> AsyncIterator[Guarded]:
    made = await Guarded(private_valkey()).filled()
    await open_accounts(made, build.ACCOUNT)
    yield made
    made.server.resume()


@pytest.fixture
async def service(guarded: Guarded) -> AsyncIterator[Served]:
    async with served(guarded) as made:
        yield made


async def _is_known(service: Served) -> bool:
    return bool((await service.authorize())["reason"] == "ok")


def _fits(schema: str, body: object) -> None:
    jsonschema.Draft202012Validator({**OPENAPI, "$ref": f"#/components/schemas/{schema}"}).validate(body)


async def test_an_account_with_credit_may_call(service: Served) -> None:
    answer = await service.authorize()
    _fits("Authorization", answer)
    assert (answer["allowed"], answer["reason"], answer["policy"]) == (True, "ok", None)
    assert answer["balance"]["available_micros"] == 20_000_000
    assert (answer["price_per_minute_micros"], answer["affordable_seconds"]) == (12_000, 99_948)
    assert answer["as_of"]["positions"] == {"usage.events": 0, "ledger.entries": 1}
    sms = await service.authorize(kind="sms", direction="outbound", to="short:12345", segments="2")
    assert (sms["allowed"], sms["price_micros"], sms["affordable_quantity"]) == (True, 1_000_000, 40)
    item = await service.authorize(kind="item", sku="number.local", quantity="18")
    assert (item["allowed"], item["reason"]) == (False, "insufficient")


async def test_a_plus_that_was_not_encoded_is_taken_for_one(service: Served) -> None:
    path = f"/v1/accounts/{build.ACCOUNT}/authorize?kind=call&direction=outbound&to=+12025550123"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["reason"] == "ok"


AUTHORIZE = "/v1/accounts/acct-1/authorize"


@pytest.mark.parametrize(
    ("request_line", "parameters", "expected"),
    [
        (f"GET {AUTHORIZE}", CALL | {"to": "020"}, (400, "malformed_request", "to")),
        (f"GET {AUTHORIZE}", {}, (400, "malformed_request", "kind")),
        ("GET /v1/accounts/a%20b/authorize", CALL, (400, "malformed_request", "id")),
        (f"GET {AUTHORIZE}", CALL | {"x": "1"}, (400, "malformed_request", "x")),
        ("GET /v1/accounts/nobody/authorize", CALL, (404, "unknown_account", None)),
        ("GET /v1/accounts/acct-1", {}, (404, "not_found", None)),
        (f"POST {AUTHORIZE}", CALL, (405, "method_not_allowed", None)),
    ],
)
async def test_refusals_are_problem_details(
    service: Served, request_line: str, parameters: dict[str, str], expected: tuple[int, str, str | None]
) -> None:
    method, path = request_line.split()
    answer = await service.get(path, method, **parameters)
    assert answer.content_type == "application/problem+json"
    _fits("Problem", answer.body)
    assert (answer.status, answer.body["code"], answer.body.get("field")) == expected
    assert answer.body["status"] == answer.status


async def test_a_bug_is_a_problem_too_and_says_nothing_more(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("billing.admission.service.decide", broken)
    answer = await service.get(f"/v1/accounts/{build.ACCOUNT}/authorize", **CALL)
    assert (answer.status, answer.body) == (
        500,
        {"title": "Internal Server Error", "status": 500, "code": "internal_error"},
    )


async def test_the_service_describes_itself(service: Served) -> None:
    assert (await service.get("/openapi.json")).body == OPENAPI


async def test_a_request_is_one_call_of_the_store(service: Served) -> None:
    await service.authorize()  # the first also asks for the incarnation
    async with service.guarded.connect() as client:
        await client.config_resetstat()
        for _ in range(20):
            await service.authorize()
        calls, stats = await client.info("commandstats"), await client.info("stats")
    assert calls["cmdstat_fcall_ro"]["calls"] == 20
    assert stats["total_reads_processed"] <= 20 + 3  # what the server read from its connections; three are ours


async def test_reads_at_the_same_time_share_calls_and_keep_their_answers(service: Served) -> None:
    names = [f"shared-{number}" for number in range(40)]
    for number, name in enumerate(names):
        await open_accounts(service.guarded, name, credit=1_000 + number)
    balances = service.service._balances
    await balances.read(names[0])
    async with service.guarded.connect() as client:
        await client.config_resetstat()
        reads = [asyncio.create_task(balances.read(name)) for name in names * 5]
        found = await asyncio.gather(*reads)
        calls = await client.info("commandstats")
    available = [answer.available_micros for answer in found if isinstance(answer, Known)]
    assert available == [1_000 + names.index(name) for name in names * 5]
    assert calls["cmdstat_fcall_ro"]["calls"] <= 2 * KEYS.partitions


async def test_s08_a_store_of_another_incarnation_or_timeline_is_unknown(service: Served) -> None:
    assert service.identity is not None
    for identity, reason in (
        (replace(service.identity, incarnation=8), "incarnation"),
        (replace(service.identity, timeline="t2"), "timeline"),
        (replace(service.identity, incarnation=None), "incarnation"),
    ):
        service.identity = identity
        answer = await service.authorize()
        assert (answer["reason"], answer["balance"]["reason"]) == ("balance_unknown", reason)
    service.identity = None  # the ledger has not been asked yet: the catalogue's timeline counts
    assert (await service.authorize())["reason"] == "ok"
    service.catalogue = build.catalogue(
        build.tariff(timeline="t2"), build.assignment(timeline="t2"), build.heartbeat(timeline="t2")
    )
    assert (await service.authorize())["balance"]["reason"] == "timeline"


async def test_s20_a_rebuild_is_seen_while_it_runs_and_when_it_is_done(service: Served) -> None:
    """The remembered incarnation is an old one afterwards."""
    assert (await service.authorize())["reason"] == "ok"
    async with service.guarded.connect() as client:
        functions = Functions(client, KEYS)
        rebuild = await admin.begin_rebuild(functions, HOME, 9)
        assert isinstance(rebuild, admin.Rebuild)
        assert (await service.authorize())["balance"]["reason"] == "rebuilding"
        record = AccountRecord("USD", 5_000, 0, 0, 0, None, 0, 3, -1, "open")
        assert await admin.write_accounts(functions, rebuild, {build.ACCOUNT: record}) == admin.Done()
        service.identity = replace(service.guarded.identity, incarnation=9)
        done = await admin.finish_rebuild(functions, rebuild, "t1", admin.Positions(*_start()))
        assert done == admin.Done()
    answer = await service.authorize()
    assert (answer["reason"], answer["balance"]["available_micros"]) == ("insufficient", 5_000)


def _start() -> tuple[admin.Position, admin.Position]:
    return admin.Position(0, ""), admin.Position(0, "")


@pytest.mark.parametrize("policy", ["allow", "deny"])
async def test_r11_a_silent_store_is_unknown_at_the_deadline_and_the_policy_decides(
    guarded: Guarded, policy: str
) -> None:
    async with served(guarded, "allow" if policy == "allow" else "deny") as service:
        assert (await service.authorize())["reason"] == "ok"
        guarded.server.pause()
        began = time.monotonic()
        answers = await asyncio.gather(*(service.authorize() for _ in range(100)))
        assert time.monotonic() - began < DEADLINE_S + 1.0  # the rest is this machine's
        for answer in answers:
            assert (answer["allowed"], answer["reason"], answer["policy"]) == (
                policy == "allow",
                "balance_unknown",
                policy,
            )
            assert answer["balance"]["reason"] == "unavailable"
            assert (answer["balance"]["available_micros"], answer["affordable_seconds"]) == (None, None)
            assert answer["price_per_minute_micros"] == 12_000
        guarded.server.resume()
        await until(lambda: _is_known(service), "known balances")
        recovered = await asyncio.gather(*(service.authorize() for _ in range(100)))
        assert {answer["reason"] for answer in recovered} == {"ok"}  # no connection was lost to the pool


async def test_a_store_that_died_or_lost_everything_is_unknown(service: Served) -> None:
    server = service.guarded.server
    async with service.guarded.connect() as client:
        await client.delete(KEYS.meta(HOME))
    answer = await service.authorize()
    assert (answer["allowed"], answer["balance"]["reason"]) == (True, "empty")
    server.kill()
    began = time.monotonic()
    answer = await service.authorize()
    assert (answer["reason"], answer["balance"]["reason"]) == ("balance_unknown", "unavailable")
    assert time.monotonic() - began < DEADLINE_S + 1.0


async def test_s39_answers_of_one_connection_belong_to_their_questions_after_deadlines_and_cuts(
    service: Served,
) -> None:
    """Calls that were given up are answered later, to nobody; a cut connection is replaced."""
    names = [f"ordered-{number}" for number in range(20)]
    for number, name in enumerate(names):
        await open_accounts(service.guarded, name, credit=1_000 + number)
    balances = service.service._balances

    async def in_order() -> bool:
        found = await asyncio.gather(*(balances.read(name) for name in names))
        for number, answer in enumerate(found):
            assert not isinstance(answer, Known) or answer.available_micros == 1_000 + number
        return all(isinstance(answer, Known) for answer in found)

    assert await in_order()
    service.guarded.server.pause()
    assert not await in_order()
    service.guarded.server.resume()
    await until(in_order, "answers")
    async with service.guarded.connect() as client:
        before = await client.info("stats")
        await client.client_kill_filter(_type="normal", skipme=True)
        await until(in_order, "answers over another connection")
        after = await client.info("stats")
    # one for all reads; `stats` counts its own too where it was cut off
    assert after["total_connections_received"] - before["total_connections_received"] <= 2


async def test_r11_reads_beyond_the_bound_are_unknown_at_once(service: Served) -> None:
    service.guarded.server.pause()
    balances = service.service._balances
    reads = [asyncio.create_task(balances.read(build.ACCOUNT)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    began = time.monotonic()
    extra = await balances.read(build.ACCOUNT)
    assert time.monotonic() - began < DEADLINE_S / 2
    assert "too many" in getattr(extra, "detail", "")
    await asyncio.gather(*reads)


async def test_a_stale_or_missing_catalogue_is_answered_by_policy(service: Served) -> None:
    service.now_ms = build.NOW_MS + LEAD_MS + 1
    answer = await service.authorize()
    assert (answer["allowed"], answer["reason"], answer["policy"]) == (True, "catalogue_stale", "allow")
    assert answer["balance"]["available_micros"] == 20_000_000
    assert (answer["price_per_minute_micros"], answer["affordable_seconds"]) == (None, None)
    service.catalogue = None
    assert (await service.authorize())["reason"] == "catalogue_stale"
    nobody = await service.authorize("nobody")  # cannot be told from a new account
    assert (nobody["reason"], nobody["balance"]["reason"]) == ("balance_unknown", "not_yet_shown")


async def test_r1_a_balance_says_how_far_it_is_behind_the_log_and_beyond_the_limit_it_is_unknown(
    service: Served,
) -> None:
    """The in-flight consumer stands still while usage comes."""
    assert (await service.authorize())["lag"] == {"records": 0, "age_ms": 0}
    service.now_s = 20.0
    service.logs_end(usage=70)
    service.now_s = 30.0
    answer = await service.authorize()
    _fits("Authorization", answer)
    assert (answer["reason"], answer["lag"]) == ("ok", {"records": 70, "age_ms": 30_000})
    service.now_s = 30.1
    answer = await service.authorize()
    _fits("Authorization", answer)
    assert (answer["allowed"], answer["reason"], answer["policy"]) == (True, "balance_unknown", "allow")
    assert (answer["balance"]["reason"], answer["balance"]["available_micros"]) == ("behind", None)
    assert answer["as_of"]["positions"] == {"usage.events": 0, "ledger.entries": 1}
    assert answer["lag"]["records"] == 70
    watching = asyncio.create_task(service.service.watch())
    try:
        await until(lambda: service.service.health()["unknown_partitions"].get(str(HOME), "")[:6] == "behind", "lag")
    finally:
        watching.cancel()
    assert service.service.health()["unknown_partitions"][str(HOME)].startswith("behind: 70 records")
    assert REGISTRY.get_sample_value("billing_admission_lag_records", {"partition": str(HOME)}) == 70


async def test_a_replica_answers_as_well_and_its_own_positions_say_how_old_it_is(
    guarded: Guarded, private_valkey: Factory
) -> None:
    """BILLING_ADMISSION_REDIS_URL: its primary is away, and nothing is known of what that has done since."""
    async with guarded.connect() as client:
        await client.config_set("repl-diskless-sync-delay", 0)
    replica = Guarded(private_valkey(config={"replicaof": f"127.0.0.1 {guarded.server.port}"}))
    async with served(replica) as service:
        service.identity = guarded.identity
        await until(lambda: _is_known(service), "the replica to have the balances")
        guarded.server.kill()
        service.logs_end(usage=5)
        answer = await service.authorize()
    assert (answer["reason"], answer["lag"]["records"]) == ("ok", 5)


async def test_an_account_between_the_two_views_is_not_unknown(service: Served) -> None:
    """Shown before it is listed, and listed before it is shown."""
    await open_accounts(service.guarded, "early")
    assert (await service.authorize("early"))["reason"] == "catalogue_stale"
    service.catalogue = build.catalogue(build.tariff(), build.assignment("late"), build.heartbeat())
    assert (await service.authorize("late"))["balance"]["reason"] == "not_yet_shown"


async def test_health_is_what_is_known(service: Served) -> None:
    assert service.service.health()["healthy"] is False  # nothing was looked at yet
    watching = asyncio.create_task(service.service.watch())
    try:
        await until(lambda: bool(service.service.health()["healthy"]), "health")
        service.guarded.server.pause()
        await until(lambda: len(service.service.health()["unknown_partitions"]) == KEYS.partitions, "trouble")
        found = service.service.health()
        assert not found["healthy"]
        assert found["catalogue_current"]
        assert set(found["unknown_partitions"].values()) == {"unavailable: timeout"}
    finally:
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_many_at_once_are_each_answered_with_their_own_account(guarded: Guarded) -> None:
    names = [f"many-{number}" for number in range(30)]
    for number, name in enumerate(names):
        await open_accounts(guarded, name, credit=22_000 + number)
    async with served(guarded) as service:
        service.catalogue = build.catalogue(
            build.tariff(), *(build.assignment(name) for name in names), build.heartbeat()
        )
        answers = await asyncio.gather(*(service.authorize(name) for name in names * 10))
    for name, answer in zip(names * 10, answers, strict=True):
        assert answer["account"] == name
        assert answer["balance"]["available_micros"] == 22_000 + names.index(name)
