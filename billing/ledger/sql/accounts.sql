-- name: create_incoming
-- Where accounts to open are copied to; one per connection, emptied at the end of each transaction.
create temporary table if not exists incoming (
    ord integer, id text, currency text, plan text, credit_micros bigint, credit_limit_micros bigint,
    recharge_below_micros bigint, recharge_by_micros bigint, customer text, payment_method text,
    daily_cap_micros bigint, home_partition integer, input jsonb, usage_position bigint
) on commit delete rows;

-- name: first_conflict
-- The first incoming account that exists with other input, with what it was opened with; no row when there is none.
select i.ord, i.id, j.detail as stored
  from incoming i
  join journal j on j.account_id = i.id and j.ledger_seq = 1
 where j.detail is distinct from i.input
 order by i.ord limit 1;

-- name: partitions
-- How many partitions accounts have their homes in: those that a migration goes to, from its first moment on.
select coalesce(moving_to, partitions) from ledger_meta;

-- name: drop_known
-- Forget the incoming accounts that exist (identical repeats by now).
delete from incoming i using accounts a where a.id = i.id
returning a.id, a.home_partition, a.usage_position;

-- name: first_without_plan
-- The first incoming account whose plan does not exist (plan_currency is null) or has another currency.
select i.ord, i.id, i.plan, i.currency, t.currency as plan_currency
  from incoming i
  left join tariffs t on t.plan = i.plan and t.version = 1
 where t.currency is distinct from i.currency
 order by i.ord limit 1;

-- name: book_openings
-- An entry per incoming account; `post_openings` adds its lines, if it has any. $1 author, $2 reason.
insert into journal (kind, author, reason, account_id, ledger_seq, detail)
select 'opened', $1, $2, id, 1, input from incoming order by id;

-- name: lock_positions
-- Hold the incoming accounts' home partitions of topic $1 against settlements until the commit (S46).
select partition, next_offset from positions
 where topic = $1 and partition in (select distinct home_partition from incoming)
 order by partition
   for share;

-- name: insert_accounts
-- The incoming accounts, opened at the positions of topic $1, or where they were opened before.
insert into accounts (id, currency, plan, home_partition, usage_position, credit_limit_micros, recharge_below_micros,
                      recharge_by_micros, daily_cap_micros, customer, payment_method)
select i.id, i.currency, i.plan, i.home_partition, coalesce(i.usage_position, p.next_offset), i.credit_limit_micros, i.recharge_below_micros,
       i.recharge_by_micros, i.daily_cap_micros, i.customer, i.payment_method
  from incoming i
  join positions p on p.topic = $1 and p.partition = i.home_partition
 order by i.id;

-- name: insert_balances
-- The incoming accounts' balances, empty: postings move them.
insert into balances (account_id, currency, ledger_seq)
select id, currency, 1 from incoming order by id;

-- name: post_openings
-- The incoming accounts' opening credit, against suspense.
insert into postings (journal_id, ledger_account, account_id, currency, amount_micros)
select j.id, side.ledger_account, side.account_id, i.currency, side.amount_micros
  from incoming i
  join journal j on j.account_id = i.id and j.ledger_seq = 1
 cross join lateral (values ('customer', i.id, i.credit_micros), ('suspense', null, -i.credit_micros))
       as side (ledger_account, account_id, amount_micros)
 where i.credit_micros <> 0
 order by j.id;

-- name: announce_openings
-- One outbox row per incoming account.
insert into outbox (partition, account_id, ledger_seq, type, data)
select a.home_partition, a.id, 1, 'ledger.account.opened.v1', jsonb_build_object(
           'account', a.id, 'ledger_seq', 1, 'timeline', m.timeline, 'currency', a.currency, 'plan', a.plan,
           'home_partition', a.home_partition, 'usage_position', a.usage_position, 'credit_micros', i.credit_micros,
           'credit_limit_micros', a.credit_limit_micros, 'recharge_below_micros', a.recharge_below_micros,
           'status', a.status)
  from incoming i
  join accounts a on a.id = i.id
 cross join ledger_meta m
 order by a.id;

-- name: assign_first_plans
-- The incoming accounts' first plan, from the beginning of time.
insert into plan_assignments (account_id, version, plan, effective_ms)
select id, 1, plan, 0 from incoming order by id;

-- name: announce_first_plans
-- One catalogue message per incoming account.
insert into catalogue_outbox (key, type, account_id, ledger_seq, data)
select 'plan:' || a.id || ':1', 'catalogue.assignment.v1', a.id, 1, jsonb_build_object(
           'timeline', m.timeline, 'account', a.id, 'version', 1, 'plan', a.plan, 'effective_ms', 0,
           'home_partition', a.home_partition, 'usage_position', a.usage_position)
  from incoming i
  join accounts a on a.id = i.id
 cross join ledger_meta m
 order by a.id;

-- name: opened_at
-- Where account $1 was opened.
select home_partition, usage_position from accounts where id = $1;

-- name: show
-- One account ($1) with its balance.
select a.*, b.credit_micros, b.used_micros, b.excluded_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.id = $1;

-- name: page
-- At most $2 accounts after $1 in id order, with their balances.
select a.*, b.credit_micros, b.used_micros, b.excluded_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.id > $1
 order by a.id limit $2;

-- name: lock
-- Account $1 with its balance, its row of `balances` locked: everything that takes a ledger_seq begins so.
select a.*, b.credit_micros, b.used_micros, b.excluded_micros, b.ledger_seq, b.last_charged_offset, m.timeline
  from balances b join accounts a on a.id = b.account_id cross join ledger_meta m
 where b.account_id = $1
   for update of b, a;

-- name: change
-- The whole terms of account $1.
update accounts
   set plan = $2, credit_limit_micros = $3, recharge_below_micros = $4, recharge_by_micros = $5, customer = $6,
       payment_method = $7, daily_cap_micros = $8, status = $9
 where id = $1;

-- name: plan_currency
-- The currency of plan $1; no row when there is no such plan.
select currency from tariffs where plan = $1 and version = 1;

-- name: assign_plan
-- The next plan of account $1: $2 plan, $3 effective (ms; null: $4 ms after now).
insert into plan_assignments (account_id, version, plan, effective_ms)
select $1::text, max(version) + 1, $2,
       coalesce($3::bigint, floor(extract(epoch from clock_timestamp()) * 1000)::bigint + $4::bigint)
  from plan_assignments where account_id = $1
returning version, effective_ms;
