-- name: mark
-- Signals ask to evaluate the accounts $1 (in order, each once), seen at usage positions $2; where $3 is set, only if the
-- account is suspended (its balance is better: that may be lifted).
insert into recharge_due (account_id, usage_position)
select s.account_id, s.usage_position
  from unnest($1::text[], $2::bigint[], $3::boolean[]) as s (account_id, usage_position, if_suspended)
  join accounts a on a.id = s.account_id
 where a.status = 'suspended' or (not s.if_suspended and a.status = 'open')
 order by s.account_id
    on conflict (account_id) do update
   set signalled_at = clock_timestamp(), signals = recharge_due.signals + 1, evaluate_at = clock_timestamp(),
       usage_position = greatest(recharge_due.usage_position, excluded.usage_position);

-- name: claim
-- Take up to $1 due rows whose time has come, the oldest first; they come again after $2 ms should the taker die.
update recharge_due d
   set evaluate_at = clock_timestamp() + $2::bigint * interval '1 ms'
 where account_id in (select account_id from recharge_due
                       where evaluate_at <= clock_timestamp()
                       order by evaluate_at limit $1
                         for update skip locked)
returning account_id, signals, usage_position, floor(extract(epoch from signalled_at) * 1000)::bigint as signalled_ms;

-- name: next_in_ms
-- How long until the first due row's time comes (0 or less: now); null without any.
select floor(extract(epoch from min(evaluate_at) - clock_timestamp()) * 1000)::bigint from recharge_due;

-- name: refused_times
-- How often in a row account $1 will have been refused as $2, this time included; no row when it is not due.
update recharge_due
   set times = case when last_outcome = $2 then times + 1 else 1 end, last_outcome = $2
 where account_id = $1
returning times;

-- name: again
-- Evaluate account $1 again in $2 ms, unless a signal came after the one numbered $3: that comes first.
update recharge_due
   set evaluate_at = clock_timestamp() + $2::bigint * interval '1 ms'
 where account_id = $1 and signals = $3;

-- name: drop
-- Account $1 is not due, unless a signal came after the one numbered $2.
delete from recharge_due where account_id = $1 and signals = $2;

-- name: sweep_low
-- Accounts whose signal was lost: of the $2 accounts with a threshold after $1 in id order, those below it by the ledger
-- that have neither a due row nor an open intent. Returns the last id looked at, null at the end, and how many were due.
with looked_at as materialized (
    select a.id, a.home_partition,
           a.status <> 'closed' and a.recharge_by_micros is not null and a.payment_method is not null
               and b.used_micros > 0
               and b.credit_micros - b.used_micros + b.excluded_micros < a.recharge_below_micros as low
      from accounts a join balances b on b.account_id = a.id
     where a.recharge_below_micros is not null and a.id > $1
     order by a.id limit $2
), marked as (
    insert into recharge_due (account_id, usage_position)
    select l.id, p.next_offset
      from looked_at l
      join positions p on p.topic = 'usage.events' and p.partition = l.home_partition
     where l.low and not exists (select from recharge_intents i where i.account_id = l.id
                                    and i.state not in ('confirmed', 'cancelled', 'refused'))
     order by l.id
        on conflict (account_id) do nothing
    returning account_id
)
select (select case when count(*) = $2::bigint then max(id) end from looked_at) as last,
       (select count(*) from marked) as marked;

-- name: sweep_exhausted
-- The same for accounts that are open and exhausted by usage, with a threshold or without: of the $2 accounts after $1.
with looked_at as materialized (
    select a.id, a.home_partition,
           a.status = 'open' and b.used_micros > 0
               and b.credit_micros - b.used_micros + b.excluded_micros + a.credit_limit_micros <= 0 as exhausted
      from accounts a join balances b on b.account_id = a.id
     where a.id > $1
     order by a.id limit $2
), marked as (
    insert into recharge_due (account_id, usage_position)
    select l.id, p.next_offset
      from looked_at l
      join positions p on p.topic = 'usage.events' and p.partition = l.home_partition
     where l.exhausted
     order by l.id
        on conflict (account_id) do nothing
    returning account_id
)
select (select case when count(*) = $2::bigint then max(id) end from looked_at) as last,
       (select count(*) from marked) as marked;

-- name: later
-- Account $1 is evaluated again in $2 ms, or earlier if it was to be.
update recharge_due set evaluate_at = least(evaluate_at, clock_timestamp() + $2::bigint * interval '1 ms')
 where account_id = $1;

-- name: store_is_well
-- The balance store is well again: evaluate what was refused because it was not ($1 refusal), spread over $2 ms.
update recharge_due set evaluate_at = clock_timestamp() + random() * $2::bigint * interval '1 ms'
 where last_outcome = $1 and evaluate_at > clock_timestamp();
