"""Each index of the settlement's tables has a query that needs it, and every one of them is used by one (R11)."""

from __future__ import annotations

import re

from ledger_support import Ledger, charge, dead_letter, names

from billing.ledger.opening import import_accounts
from billing.ledger.queries import query
from billing.ledger.terms import NewAccount

NEEDED = {
    "usage_pkey": ("sink.settled_before", "array['{one}'], array['call'], array['s1']"),
    "usage_by_log_time": ("snapshots.partition_settled", "0, 1003900"),
    "accounts_pkey": ("sink.known_accounts", "array['{one}']"),
    "accounts_by_partition": ("reconcile.account_count", "5"),
    "balances_pkey": ("booking.move", "'{one}', 0, 1"),
    "journal_pkey": (None, "select booked_at from journal where id = 17"),
    "journal_by_account": ("accounts.first_conflict", ""),
    "journal_by_range": (None, "select from journal where partition = 0 and from_offset = 7 and kind = 'settlement'"),
    "journal_idempotency_key_key": ("booking.by_key", "'k'"),
    "postings_by_entry": (None, "select sum(amount_micros) from postings where journal_id = 17"),
    "outbox_by_partition": ("relay.entries", "3, 1000"),
    "outbox_pkey": ("relay.delete_entries", "array[1, 2]"),
    "outbox_account_id_ledger_seq_key": (None, "select from outbox where account_id = '{one}' and ledger_seq <= 1"),
    "dead_letters_pkey": (
        None,
        "select value from dead_letters where (topic, partition, log_offset) > ('usage.events', 0, 4900)"
        " order by topic, partition, log_offset limit 10",
    ),
}
"""By index: a query of ours with its arguments, or a statement that stands in a trigger or a larger query. A unique
index that also keeps a rule is here too."""

TABLES = ("usage", "accounts", "balances", "journal", "postings", "outbox", "dead_letters")
ELSEWHERE = {
    "accounts_suspended": "recharge",
    "accounts_recharged": "recharge",
    "journal_by_corrected": "corrections",
    "dead_letters_by_reason": "dead letters",
    "dead_letters_by_account": "dead letters",
    "dead_letters_by_key": "dead letters",
}
"""Of these tables, but of another subject, whose tests look at them."""


async def test_every_index_is_used_by_a_query_and_there_is_no_other(ledger: Ledger) -> None:
    accounts = names(0, 500)
    await import_accounts(ledger.pool, [NewAccount(a, "USD", "basic") for a in accounts], author="tests")
    others = [NewAccount(f"other-{i:05d}", "USD", "basic") for i in range(3000)]
    await import_accounts(ledger.pool, others, author="tests")
    owner, end = await ledger.claim(), 0
    for _ in range(8):
        end = await ledger.settle(owner, end, [charge(i, accounts[i % 500], f"s{i}") for i in range(end, end + 500)])
    await ledger.settle(owner, end, [dead_letter(end + i) for i in range(1000)])
    await ledger.pool.execute("vacuum analyze usage, accounts, balances, journal, postings, outbox, dead_letters")
    for index, (name, arguments) in NEEDED.items():
        plan = await _plan(ledger, name, arguments.format(one=accounts[0]))
        assert re.search(rf"\b({index}|usage_\d_pkey|usage_\d_log_time_ms_idx)\b", plan), f"{index}:\n{plan}"
        if not index.startswith("usage"):
            assert index in plan, f"{index}:\n{plan}"
    found = await ledger.pool.fetch(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where i.indrelid = any($1::regclass[])",
        list(TABLES),
    )
    assert {row["relname"] for row in found} == {*NEEDED, *ELSEWHERE}


async def _plan(ledger: Ledger, name: str | None, arguments: str) -> str:
    """The plan of a query with these arguments; of a statement, when it has no name."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute(query("sink.look_up"))
        if name == "accounts.first_conflict":
            await connection.execute(query("accounts.create_incoming"))
        text = arguments if name is None else query(name)
        statement = f"explain {text}"
        if name is not None and arguments:
            types = await connection.prepare(text)
            declared = ", ".join(f"{p.schema}.{p.name}" if p.schema else p.name for p in types.get_parameters())
            await connection.execute(f"prepare planned ({declared.replace('pg_catalog.', '')}) as {text}")
            statement = f"explain execute planned ({arguments})"
        rows = await connection.fetch(statement)
        if statement.startswith("explain execute"):
            await connection.execute("deallocate planned")
        return "\n".join(row[0] for row in rows)
