-- name: surroundings
-- What surrounds account $1 of partition $2: the ledger's usage position and log time there, its entries that wait in the
-- outbox, and why money movement is frozen (null: it is not).
select p.next_offset as usage_position, p.log_time_ms, p.halted,
       (select count(*) from outbox o where o.account_id = $1) as waiting_entries,
       (select f.reason from recharge_freezes f where f.account_id = $1 and f.frozen) as frozen_reason
  from positions p where p.topic = 'usage.events' and p.partition = $2;

-- name: entries
-- The newest $2 entries on account $1, those without money too.
select j.id as entry, j.kind, j.origin, j.ledger_seq, j.booked_at, j.author, j.reason, j.corrects_id as corrects, j.detail,
       coalesce((select sum(p.amount_micros) from postings p
                  where p.journal_id = j.id and p.ledger_account = 'customer'), 0)::bigint as amount_micros
  from journal j where j.account_id = $1
 order by j.ledger_seq desc limit $2;

-- name: usage
-- The settled sessions of account $1 by kind, free ones too; what is archived as one kind of its own. Last offsets are of
-- its home partition, since it is there.
select u.tariff_kind as kind, count(*) as sessions, sum(u.quantity)::bigint as quantity,
       sum(u.amount_micros)::bigint as amount_micros,
       max(u.log_offset) filter (where u.partition = a.home_partition and u.log_offset >= a.usage_position) as last_offset
  from usage u join accounts a on a.id = u.account_id where u.account_id = $1 group by u.tariff_kind
union all
select 'archived', x.sessions, 0, x.amount_micros, case when x.placed_ms = a.placed_ms then x.last_offset end
  from archived_accounts x join accounts a on a.id = x.account_id where x.account_id = $1
 order by kind;
