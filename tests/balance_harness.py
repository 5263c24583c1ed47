"""A balance store of its own on the shared server, for tests: a test build of the function library under another name
(fewer strays kept, writes that can be made to fail), and the stored state as the model has it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from billing.balance import admin
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.conditions import conditions
from billing.balance.keys import KeySpace
from billing.balance.library import FUNCTION_VERSION, source
from billing.balance.model import BACKLOG, PartitionModel
from billing.balance.passed import PassedHolds, Span
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.balance.reader import BalanceReader
from billing.balance.records import AccountRecord, HoldRecord, Status, UnknownRecord
from billing.balance.signals import StoredSignal
from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerView
from billing.balance.store import RedisSink
from billing.settings import Topics
from billing.stream.record import Position
from billing.stream.sink import Batch, Claimed, Owner
from billing.usage.ops import CALL_LEASE_MS, Charge, Hold, SessionKind
from schemas.ledger import AccountOpened, EntryPosted

TOPICS = Topics("usage.events", "ledger.entries", "billing.tariffs", "billing.signals")
TIMELINE = "t1"
PARTITION = 3
GENERATION_MS = 6 * 3_600_000
START_MS = 1_700_000_000_000
STRAYS = 2

_WRITE = "local function write(...)\n  return redis.call(...)\nend\n"
_FAILING_WRITE = """local writes_left
local function write(...)
  if writes_left then
    if writes_left == 0 then
      writes_left = nil
      error('injected')
    end
    writes_left = writes_left - 1
  end
  return redis.call(...)
end
redis.register_function(LIBRARY .. '_fail_after', function(_, args)
  writes_left = tonumber(args[1])
  return 'OK'
end)
"""


def build_with_faults(library: str, version: str = FUNCTION_VERSION, backlog: int = BACKLOG) -> str:
    """The library with smaller bounds of strays and unpublished signals and a way to make a write fail."""
    text = source(library, version)
    for old, new in (
        (_WRITE, _FAILING_WRITE),
        ("local STRAYS = 10000 ", f"local STRAYS = {STRAYS} "),
        ("local BACKLOG = 100000 ", f"local BACKLOG = {backlog} "),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text




class Store:
    """One partition of a test store."""

    def __init__(self, functions: Functions, backlog: int = BACKLOG) -> None:
        self.functions = functions
        self.backlog = backlog
        self.client = functions.client
        self.sink = RedisSink(functions, TOPICS)
        self.reader = BalanceReader(functions, TOPICS, lambda account: PARTITION)
        self._incarnations = itertools.count(1)
        self.incarnation = 0

    @staticmethod
    @asynccontextmanager
    async def open(redis_url: str, backlog: int = BACKLOG) -> Any:
        """Loads the test library and removes it and all keys afterwards. `backlog` bounds unpublished signals."""
        client = open_client(redis_url)
        name = f"billing_test_{uuid.uuid4().hex[:12]}"
        await client.function_load(build_with_faults(name, backlog=backlog))
        functions = PipelinedFunctions(client, KeySpace(name, 8, GENERATION_MS), library=name)
        store = Store(functions, backlog)
        try:
            try:
                yield store
            finally:
                await store.wipe()
                await client.function_delete(name)
        finally:
            functions.close()
            await client.aclose()

    async def wipe(self) -> None:
        """Delete every key: the store is empty again."""
        keys = [self.functions.keys.meta(PARTITION)]
        for incarnation in range(1, next(self._incarnations) + 1):
            keys += self.functions.keys.data(PARTITION, str(incarnation))
        self._incarnations = itertools.count(1)
        await self.client.delete(*keys)

    async def start(self, log_time_ms: int = START_MS) -> PartitionModel:
        """Initialise; the model of the same state."""
        self.incarnation = next(self._incarnations)
        positions = {TOPICS.usage: Position(0, ""), TOPICS.entries: Position(0, "")}
        answer = await admin.initialise(
            self.functions,
            PARTITION,
            self.incarnation,
            TIMELINE,
            admin.Positions(positions[TOPICS.usage], positions[TOPICS.entries], log_time_ms),
        )
        assert answer == admin.Done()
        return PartitionModel(
            TOPICS,
            TIMELINE,
            GENERATION_MS,
            positions,
            log_time_ms,
            stray_limit=STRAYS,
            backlog_limit=self.backlog,
        )

    async def claimed(self, nonce: str = "n") -> Owner:
        """Claim the partition."""
        answer = await self.sink.claim(PARTITION, nonce)
        assert isinstance(answer, Claimed), answer
        return answer.owner

    async def fail_after(self, writes: int | None) -> None:
        """Let the write after that many fail, once; None switches it off."""
        name = f"{self.functions.library}_fail_after"
        await self.client.fcall(name, 0, "" if writes is None else writes)

    async def rebuild(self, model: PartitionModel) -> PartitionModel:
        """Write the model's known accounts, holds and dedupe window as a new incarnation; the model of that."""
        self.incarnation = next(self._incarnations)
        rebuild = await admin.begin_rebuild(self.functions, PARTITION, self.incarnation)
        assert isinstance(rebuild, admin.Rebuild), rebuild
        steps = [
            await admin.write_accounts(self.functions, rebuild, model.accounts),
            await admin.write_holds(self.functions, rebuild, model.open_holds()),
        ]
        current, done = model.log_time_ms // GENERATION_MS, {}
        for slot, (number, keys) in model.done.items():
            if current - 2 <= number <= current:
                sessions = [_session(key) for key in keys]
                step = admin.write_settled(self.functions, rebuild, sessions, number * GENERATION_MS)
                steps.append(await step)
                done[slot] = (number, set(keys))
        usage, entries = model.positions[TOPICS.usage], model.positions[TOPICS.entries]
        positions = admin.Positions(usage, entries, model.log_time_ms)
        steps.append(await admin.finish_rebuild(self.functions, rebuild, TIMELINE, positions))
        assert set(map(type, steps)) == {admin.Done}, steps
        return replace(
            model,
            epoch=rebuild.owner.epoch,
            nonce=rebuild.owner.nonce,
            unknown={},
            strays={},
            floor=usage.offset,
            expired=0,
            halted="",
            done=done,
            accounts={name: replaced(record) for name, record in model.accounts.items()},
            signals=[],
        )

    async def signals(self) -> list[StoredSignal]:
        """The signals that are not yet published, and forgets them, as a publisher does."""
        owner = await self._owner()
        reply = await self._signals(owner, "", 1_000_000)
        stream = reply[3]
        if stream:
            milliseconds, sequence = stream[-1][0].decode().split("-")
            await self._signals(owner, f"{milliseconds}-{int(sequence) + 1}", 1)
        return [StoredSignal.unpack(fields[1]) for _, fields in stream]

    async def remind(self) -> None:
        """One whole round of repeats."""
        cursor = "0"
        while True:
            keys, incarnation = self.functions.keys.all(PARTITION, str(self.incarnation)), str(self.incarnation)
            owner = await self._owner()
            reply = await self.functions.call("remind", keys, incarnation, owner.epoch, owner.nonce, cursor, 2)
            assert isinstance(reply, list), reply
            if reply[0] == "full" or (cursor := reply[1].decode()) == "0":
                return

    async def _signals(self, owner: Owner, keep: str, count: int) -> list[Any]:
        keys, incarnation = self.functions.keys.all(PARTITION, str(self.incarnation)), str(self.incarnation)
        reply = await self.functions.call("signals", keys, incarnation, owner.epoch, owner.nonce, keep, count)
        assert isinstance(reply, list), reply
        return reply

    async def _owner(self) -> Owner:
        meta: Any = await self.client.hmget(self.functions.keys.meta(PARTITION), ["epoch", "nonce"])
        return Owner(int(meta[0]), meta[1].decode())

    async def state(self) -> dict[str, Any]:
        """What is stored, in the shape of `model_state`."""
        keys = self.functions.keys.all(PARTITION, str(self.incarnation))
        meta, pos, acct, sess, lease, stray, deriving, *done, alert, sig, _ = keys
        pipe = self.client.pipeline(transaction=True)
        for key in (meta, pos, acct, sess, deriving):
            pipe.hgetall(key)
        for key in (lease, stray):
            pipe.zrange(key, 0, -1, withscores=True)
        for key in done:
            pipe.smembers(key)
        pipe.smembers(alert)
        pipe.xrange(sig)
        m, p, accounts, holds, unknown, leases, strays, *sets, alerted, stream = await pipe.execute()
        m, p = _text(m), _text(p)
        ends = {name.decode(): HoldRecord.unpack(packed).lease_end_ms for name, packed in holds.items()}
        assert "torn" in m or _text(dict(leases)) == ends
        return {
            "owner": (int(m["epoch"]), m["nonce"]),
            "halted": m.get("halted", ""),
            "torn": m.get("torn", ""),
            TOPICS.usage: Position(int(p["usage_offset"]), p["usage_fingerprint"]),
            TOPICS.entries: Position(int(p["entries_offset"]), p["entries_fingerprint"]),
            "times": (int(p["log_time"]), int(p["floor"]), int(p["expired"])),
            "accounts": {k.decode(): AccountRecord.unpack(v) for k, v in accounts.items()},
            "holds": {k.decode(): HoldRecord.unpack(v) for k, v in holds.items()},
            "unknown": {k.decode(): UnknownRecord.unpack(v) for k, v in unknown.items()},
            "strays": {k: int(v) for k, v in _text(dict(strays)).items()},
            "alerted": {name.decode() for name in alerted},
            "signals": in_order(StoredSignal.unpack(fields[b"s"]) for _, fields in stream),
            "done": {
                slot: (int(p[f"generation_{slot}"]), {key.decode() for key in keys})
                for slot, keys in enumerate(sets)
                if f"generation_{slot}" in p
            },
        }


def in_order(signals: Iterable[StoredSignal]) -> list[StoredSignal]:
    """As a multiset: within a call their order is free."""
    return sorted(signals, key=repr)


def replaced(record: AccountRecord) -> AccountRecord:
    """The record as a rebuild writes it."""
    return msgspec.structs.replace(record, flags=conditions(record))


def model_state(model: PartitionModel) -> dict[str, Any]:
    """The model in the shape of `Store.state`; checks that held is the sum of the holds."""
    held = model.held_by_account()
    assert {k: v.held for k, v in model.accounts.items() if v.held} == {k: v for k, v in held.items() if v}
    return {
        "owner": (model.epoch, model.nonce),
        "halted": model.halted,
        "torn": "",
        TOPICS.usage: model.positions[TOPICS.usage],
        TOPICS.entries: model.positions[TOPICS.entries],
        "times": (model.log_time_ms, model.floor, model.expired),
        "accounts": model.accounts,
        "holds": model.holds,
        "unknown": model.unknown,
        "strays": model.strays,
        "alerted": model.alerted(),
        "signals": in_order(model.signals),
        "done": model.done,
    }


class FixedLedger(LedgerView):
    """A ledger that answers from a table; accounts that are not in it are lagging."""

    def __init__(self, snapshots: dict[str, AccountSnapshot]) -> None:
        self.snapshots = snapshots
        self.asked: list[tuple[str, int, int, int]] = []

    async def derive(
        self, account: str, partition: int, below_offset: int, settled_since_ms: int
    ) -> AccountSnapshot | LedgerLagging:
        self.asked.append((account, partition, below_offset, settled_since_ms))
        return self.snapshots.get(account, LedgerLagging())


class FixedLog(PassedHolds):
    """Passed holds from a table; accounts that are not in it cannot be priced."""

    def __init__(self, holds: dict[str, dict[str, HoldRecord]]) -> None:
        self.holds = holds
        self.asked: list[tuple[int, dict[str, Span]]] = []

    async def read(self, partition: int, spans: Mapping[str, Span]) -> Mapping[str, Mapping[str, HoldRecord]] | None:
        self.asked.append((partition, dict(spans)))
        return {account: self.holds[account] for account in spans if account in self.holds}


def opened(
    account: str,
    *,
    credit: int = 20_000_000,
    at: int = 0,
    timeline: str = TIMELINE,
    below: int | None = None,
    status: Status = "open",
) -> AccountOpened:
    return AccountOpened(
        account=account,
        ledger_seq=1,
        timeline=timeline,
        currency="USD",
        plan="basic",
        home_partition=PARTITION,
        usage_position=at,
        credit_micros=credit,
        credit_limit_micros=0,
        recharge_below_micros=below,
        status=status,
    )


def posted(account: str, seq: int, amount: int, currency: str = "USD") -> EntryPosted:
    return EntryPosted(
        account=account,
        ledger_seq=seq,
        timeline=TIMELINE,
        entry_id=f"e{seq}",
        amount_micros=amount,
        currency=currency,
        origin="adjustment",
        reason="test",
    )


def hold(offset: int, account: str, session: str, amount: int, **changes: Any) -> Hold:
    return Hold(
        offset=offset,
        log_time_ms=changes.get("log_time_ms", START_MS),
        account=account,
        kind=changes.get("kind", "call"),
        session=session,
        amount_micros=amount,
        elapsed=changes.get("elapsed", 0),
        lease_ms=changes.get("lease_ms", CALL_LEASE_MS),
    )


def charge(offset: int, account: str, session: str, amount: int, **changes: Any) -> Charge:
    return Charge(
        offset=offset,
        log_time_ms=changes.get("log_time_ms", START_MS),
        account=account,
        kind=changes.get("kind", "call"),
        session=session,
        amount_micros=amount,
        currency=changes.get("currency", "USD"),
        plan="basic",
        tariff_version=1,
        price_time_ms=START_MS,
        tariff_kind="call",
        direction="outbound",
        destination="+14155550100",
        origin="+14155550101",
        quantity=60,
        status="completed",
        matched="1",
        event_id=changes.get("event_id", f"ev{offset}"),
        event_source="test",
    )


def batch(owner: Owner, from_offset: int, to_offset: int, ops: list[Any], **changes: Any) -> Batch[Any]:
    return Batch(
        owner=owner,
        topic=changes.get("topic", TOPICS.usage),
        partition=PARTITION,
        from_offset=from_offset,
        to_offset=to_offset,
        fingerprint=changes.get("fingerprint", f"{to_offset - 1}:{to_offset:016x}"),
        log_time_ms=changes.get("log_time_ms", START_MS),
        ops=ops,
        caught_up=changes.get("caught_up", False),
    )


def entries(owner: Owner, from_offset: int, ops: list[Any]) -> Batch[Any]:
    return batch(owner, from_offset, from_offset + len(ops), ops, topic=TOPICS.entries)


def _session(key: str) -> tuple[SessionKind, str, str]:
    letter, account, session = key.split("/")
    kinds: dict[str, SessionKind] = {"c": "call", "m": "message", "i": "item"}
    return kinds[letter], account, session


def _text(mapping: dict[Any, Any]) -> dict[str, Any]:
    return {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in mapping.items()}


