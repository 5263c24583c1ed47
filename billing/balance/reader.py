"""Reading balances: each answer is one moment of one partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from operator import methodcaller

from billing.balance.balances import (
    BalanceAnswer,
    Known,
    NoSuchAccount,
    OpenHold,
    PartitionView,
    Unknown,
)
from billing.balance.calls import Functions, Reply, Trouble
from billing.balance.keys import split_session_key
from billing.balance.records import AccountRecord, HoldRecord, UnknownRecord
from billing.settings import Topics
from billing.stream.record import Position
from billing.stream.sink import Halted, ReadOnly, Refused, Unavailable, Uninitialised

PAGE = 500  # accounts of one call
RACES = 3  # how often a read is repeated when a rebuild ended in the middle of it


class BalanceReader:
    """Reads through read-only functions, so also from a replica. `partition_of` gives an account's home partition;
    `incarnation` and `timeline`, where given, are what the ledger expects of the store."""

    def __init__(
        self,
        functions: Functions,
        topics: Topics,
        partition_of: Callable[[str], int],
        *,
        incarnation: int | None = None,
        timeline: str | None = None,
    ) -> None:
        self._functions = functions
        self._topics = topics
        self._partition_of = partition_of
        self._incarnation = "" if incarnation is None else str(incarnation)
        self._timeline = timeline

    async def read_balance(self, account: str) -> BalanceAnswer:
        """The account's balance now."""
        answer = await self._call("read", self._partition_of(account), account)
        if isinstance(answer, Unknown):
            return answer
        incarnation, reply = answer
        if reply[0] == "unknown":
            return Unknown(UnknownRecord.unpack(reply[1]).reason)
        if reply[0] == "no_account":
            return NoSuchAccount()
        return self._known(account, incarnation, reply[1], reply[2])

    def by_partition(self, accounts: Iterable[str]) -> dict[int, list[str]]:
        """The accounts of each home partition, in the order given."""
        found: dict[int, list[str]] = {}
        for account in accounts:
            found.setdefault(self._partition_of(account), []).append(account)
        return found

    async def read_many(self, partition: int, accounts: Sequence[str]) -> dict[str, BalanceAnswer] | Unknown:
        """The balances of these accounts of one partition (at most PAGE), all at one moment."""
        answer = await self._call("read_many", partition, *accounts)
        if isinstance(answer, Unknown):
            return answer
        incarnation, (_, status, records, unknown) = answer
        found: dict[str, BalanceAnswer] = {}
        for account, packed, why in zip(accounts, records, unknown, strict=True):
            if why and not (packed and AccountRecord.read(packed) is None):
                found[account] = Unknown(UnknownRecord.unpack(why).reason)
            elif packed:
                found[account] = self._known(account, incarnation, packed, status)
            else:
                found[account] = NoSuchAccount()
        return found

    async def read_partition(self, partition: int) -> PartitionView | Unknown:
        """Positions and sizes of a partition."""
        answer = await self._call("partition", partition)
        if isinstance(answer, Unknown):
            return answer
        incarnation, (_, status, accounts, holds, unknown, strays) = answer
        return PartitionView(
            incarnation,
            self._positions(status),
            int(status[4]),
            int(status[5]),
            accounts,
            holds,
            unknown,
            strays,
        )

    async def read_holds(self, account: str) -> list[OpenHold] | Unknown:
        """Open holds of an account, by session. Looks through the holds of its whole partition, page by page."""
        partition = self._partition_of(account)
        answer = await self._call("partition", partition)
        if isinstance(answer, Unknown):
            return answer
        key = self._functions.keys.data(partition, answer[0])[2]
        cursor, holds = 0, {}
        while True:
            scan = methodcaller("hscan", key, cursor, match=f"?/{account}/*", count=1000)
            page = await self._functions.at(key, scan)
            if isinstance(page, ReadOnly | Unavailable | Uninitialised):
                return _why(page)
            cursor = int(page[0])
            for name, packed in page[1].items():
                kind, _, session = split_session_key(name.decode())
                hold = HoldRecord.read(packed)
                if hold is None:
                    return Unknown("unreadable", f"the hold of {kind} {session}; the reconciler mends it")
                holds[name] = OpenHold(kind, session, hold.amount, hold.elapsed, hold.lease_end_ms)
            if cursor == 0:
                return sorted(holds.values(), key=lambda hold: (hold.kind, hold.session))

    async def unreadable_holds(self, partition: int) -> AsyncIterator[set[str]]:
        """Accounts of a partition with holds that cannot be read, by page; nothing where the store is unknown."""
        cursor = 0
        while True:
            answer = await self._call("unreadable", partition, cursor, PAGE)
            if isinstance(answer, Unknown):
                return
            _, (_, next_cursor, sessions) = answer
            if sessions:
                yield {split_session_key(session.decode())[1] for session in sessions}
            cursor = int(next_cursor)
            if cursor == 0:
                return

    async def scan_partition(self, partition: int) -> AsyncIterator[tuple[str, Known | Unknown]]:
        """Every account of a partition; each page is one moment, and an account may come twice. Where the store as a
        whole is unknown, the last item has the account "" and says why."""
        for what in ("unknown", "accounts"):  # one that becomes known in between comes twice rather than never
            cursor = 0
            while True:
                answer = await self._call("scan", partition, what, cursor, PAGE)
                if isinstance(answer, Unknown):
                    yield "", answer
                    return
                incarnation, (_, next_cursor, status, names, records, unknown) = answer
                for name, packed, why in zip(names, records, unknown, strict=True):
                    account = name.decode()
                    if what == "accounts" and not why:
                        yield account, self._known(account, incarnation, packed, status)
                    elif what == "accounts" or not packed:
                        yield account, Unknown(UnknownRecord.unpack(why).reason)
                cursor = int(next_cursor)
                if cursor == 0:
                    break

    async def _call(self, name: str, partition: int, *args: str | int) -> tuple[str, Reply] | Unknown:
        """The incarnation that answered, and its answer."""
        trouble: Trouble = Unavailable("rebuilt again and again")
        for _ in range(RACES):
            incarnation = await self._functions.incarnation(partition)
            if not isinstance(incarnation, str):
                return _why(incarnation)
            keys = self._functions.keys.all(partition, incarnation)
            reply = await self._functions.call(name, keys, incarnation, *args, read_only=True)
            if isinstance(reply, list):
                return self._checked(incarnation, reply)
            trouble = reply
            if trouble != Uninitialised("incarnation"):
                break
        return _why(trouble)

    def _checked(self, incarnation: str, reply: Reply) -> tuple[str, Reply] | Unknown:
        if self._incarnation not in ("", incarnation):
            return Unknown("incarnation", f"the store has {incarnation}, the ledger expects {self._incarnation}")
        timeline = reply[1].decode()
        if self._timeline not in (None, timeline):
            return Unknown("timeline", f"the store has {timeline}, the ledger {self._timeline}")
        return incarnation, [reply[0], *reply[2:]]

    def _known(self, account: str, incarnation: str, packed: bytes, status: Reply) -> Known | Unknown:
        record = AccountRecord.read(packed)
        if record is None:
            return Unknown("unreadable", "not a record of this build; the reconciler mends it, `billing rebuild` too")
        return Known(
            account=account,
            currency=record.currency,
            credit_micros=record.credit,
            used_micros=record.used,
            held_micros=record.held,
            credit_limit_micros=record.credit_limit,
            recharge_below_micros=record.recharge_below,
            excluded_micros=record.excluded,
            ledger_seq=record.ledger_seq,
            last_charge_offset=record.last_charge_offset,
            status=record.status,
            incarnation=incarnation,
            positions=self._positions(status),
            usage_position=int(status[0]),
            log_time_ms=int(status[4]),
        )

    def _positions(self, status: Reply) -> dict[str, Position]:
        usage_offset, usage_print, entries_offset, entries_print = status[:4]
        return {
            self._topics.usage: Position(int(usage_offset), usage_print.decode()),
            self._topics.entries: Position(int(entries_offset), entries_print.decode()),
        }


def _why(trouble: Trouble) -> Unknown:
    match trouble:
        case Refused(reason):
            return Unknown("version", reason)
        case Halted(reason):
            return Unknown("halted", reason)
        case Uninitialised(reason):
            return Unknown(reason)
        case ReadOnly(reason) | Unavailable(reason):
            return Unknown("unavailable", reason)
        case _:
            return Unknown("unavailable", "fenced")
