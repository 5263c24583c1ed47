-- name: surroundings
-- What is not in the account's row: for account $1 of partition $2, the ledger's usage position and log time, freezes,
-- switches, whether the present card is saved at the gateway, and the ledger's clock (ms).
select p.next_offset as usage_position, p.log_time_ms, s.paused, m.timeline,
       case when s.suspected is not null then 'the ledger may have been restored: ' || s.suspected
            when s.reconciled_timeline is distinct from m.timeline
                then 'timeline ' || m.timeline || ' is not reconciled with the gateway'
            else (select f.reason from recharge_freezes f where f.account_id = $1 and f.frozen) end as frozen_reason,
       exists (select from recharge_cards c join accounts a on a.id = c.account_id and a.customer = c.customer
                and a.payment_method = c.payment_method where c.account_id = $1) as card_saved,
       floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms
  from positions p cross join recharge_switch s cross join ledger_meta m
 where p.topic = 'usage.events' and p.partition = $2;

-- name: history
-- The recharges of account $1. Everything counts that is not definitively cancelled or refused; today is the UTC day of
-- the ledger's clock in which its money moves, or may still move. A success, or a new payment method, ends a run of
-- declines; a card that could not be saved counts as declined.
with intents as materialized (
    select id, state, amount_micros, created_at, declined_at, succeeded_at, counted_at,
           state in ('proving', 'created', 'confirming', 'declined', 'withdrawn') as pending,
           (state in ('confirmed', 'cancelled', 'refused')) as closed
      from recharge_intents where account_id = $1
), today as (
    select * from intents
     where state not in ('cancelled', 'refused')
       and (pending or counted_at >= date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC')
), declines as (
    select declined_at, 1 as times from intents
     where state in ('declined', 'cancelled') and declined_at is not null
       and declined_at > coalesce((select max(succeeded_at) from intents), '-infinity')
       and declined_at > coalesce((select forgiven_at from recharge_forgiven where account_id = $1), '-infinity')
    union all
    select declined_at, declines from recharge_cards
     where account_id = $1
       and declined_at > coalesce((select forgiven_at from recharge_forgiven where account_id = $1), '-infinity')
)
select (select min(id) from intents where not closed) as open_intent,
       (select count(*) from today) as count_today,
       (select coalesce(sum(amount_micros), 0)::bigint from today) as amount_today_micros,
       (select floor(extract(epoch from max(created_at)) * 1000)::bigint from intents
         where state <> 'refused') as newest_at_ms,
       (select coalesce(sum(times), 0)::bigint from declines) as declines_in_a_row,
       (select floor(extract(epoch from max(declined_at)) * 1000)::bigint from declines) as last_decline_at_ms;

-- name: ensure_breaker
-- The breaker of currency $1 is there.
insert into recharge_breaker (currency) values ($1) on conflict do nothing;

-- name: lock_breaker
-- The breaker of currency $1, locked after the account's balance row, always in this order.
select open, tripped_at, tripped_by, reset_at from recharge_breaker where currency = $1 for update;

-- name: breaker_open
-- Whether the breaker of currency $1 is open; no row: it never was.
select open from recharge_breaker where currency = $1;

-- name: breaker_used
-- Money of currency $1 that moved in the last minute since the last reset, and all that may still move.
select (coalesce((select sum(amount_micros) from recharge_intents
                   where currency = $1 and state in ('proving', 'created', 'confirming', 'declined', 'withdrawn')), 0)
      + coalesce((select sum(amount_micros) from recharge_intents
                   where currency = $1 and state in ('succeeded', 'credited', 'confirmed')
                     and counted_at > clock_timestamp() - interval '60 seconds'
                     and counted_at > coalesce((select reset_at from recharge_breaker where currency = $1),
                                               '-infinity')), 0))::bigint as used_micros;

-- name: trip
-- Open the breaker of currency $1 because of account $2.
update recharge_breaker set open = true, tripped_at = clock_timestamp(), tripped_by = $2 where currency = $1 and not open;

-- name: repeat_evaluation
-- The same refusal again within the hour: $1 account, $2 stage, $3 refusal, $4 checks, $5 timeline.
update recharge_evaluations
   set times = times + 1, last_at = clock_timestamp(), checks = $4
 where id = (select id from recharge_evaluations where account_id = $1 and stage = $2 order by id desc limit 1)
   and refusal = $3 and timeline = $5 and intent_id is null and first_at > clock_timestamp() - interval '1 hour'
returning id;

-- name: add_evaluation
-- $1 account, $2 stage, $3 refusal or null, $4 checks, $5 timeline, $6 intent or null.
insert into recharge_evaluations (account_id, stage, refusal, checks, timeline, intent_id)
values ($1, $2, $3, $4, $5, $6)
returning id;
