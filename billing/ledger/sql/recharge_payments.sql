-- name: uncredited
-- Which of the payments $1 no intent has credited, but for those that a worker is busy with (changed in the last $2 ms).
select p.id
  from unnest($1::text[]) as p (id)
 where not exists (select from recharge_intents i
                    where i.payment_id = p.id
                      and (i.credit_seq is not null
                           or (i.state not in ('confirmed', 'cancelled', 'refused')
                               and i.updated_at > clock_timestamp() - $2::bigint * interval '1 ms')))
 order by p.id;

-- name: knows_timeline
-- Whether this ledger was ever that of timeline $1.
select exists (select from ledger_timelines where timeline = $1)
    or exists (select from recharge_switch where reconciled_timeline = $1)
    or exists (select from recharge_intents where timeline = $1);

-- name: now_ms
-- The ledger's clock, ms since 1970 UTC.
select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms;
