-- name: sequences
-- The ledger_seq of the accounts $1 that there are.
select account_id as id, ledger_seq from balances where account_id = any($1::text[]);

-- name: suspected
-- Why the ledger is believed to be an earlier state of itself.
select suspected from recharge_switch where suspected is not null;

-- name: suspect
-- Believe so from here on, because of $1. No row when it was believed already.
update recharge_switch set suspected = $1 where suspected is null returning suspected;

-- name: halt_all
-- Halt every partition that is not halted, with reason $1.
update positions set halted = $1 where halted is null;

-- name: unsuspect
-- Believe so no more, and lift what it halted: reasons that begin with $1.
with lifted as (
    update positions set halted = null where halted like $1 || '%' returning topic
)
update recharge_switch set suspected = null where (select count(*) from lifted) >= 0;

-- name: new_timeline
-- Begin timeline $1; returns the one before.
with before as materialized (select timeline from ledger_meta)
update ledger_meta set timeline = $1 returning (select timeline from before) as before;

-- name: timelines
-- Every timeline that this ledger had, the present one last.
select t.timeline from ledger_timelines t cross join ledger_meta m
 order by t.timeline = m.timeline, t.began_at;

-- name: entry_at
-- What the ledger has as entry $2 of account $1: kind, origin, reason, and the amount for the customer.
select j.kind, j.origin, j.reason, coalesce(sum(p.amount_micros), 0)::bigint as amount_micros
  from journal j left join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
 where j.account_id = $1 and j.ledger_seq = $2
 group by j.id;
