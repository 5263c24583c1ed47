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
-- The settled sessions of account $1 by kind, free ones too; what is archived as one kind of its own.
select tariff_kind as kind, count(*) as sessions, sum(quantity)::bigint as quantity, sum(amount_micros)::bigint as amount_micros,
       max(log_offset) as last_offset
  from usage where account_id = $1 group by tariff_kind
union all
select 'archived', sessions, 0, amount_micros, last_offset from archived_accounts where account_id = $1
 order by kind;
