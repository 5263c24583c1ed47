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

-- name: timelines
-- Every timeline that this ledger had, the present one last.
select t.timeline from ledger_timelines t cross join ledger_meta m
 order by t.timeline = m.timeline, t.began_at;
