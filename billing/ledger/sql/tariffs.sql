-- name: newest
-- The newest version of plan $1; no row when there is none.
select version, currency, effective_ms from tariffs where plan = $1 order by version desc limit 1;

-- name: lock_plan
-- One loader per plan ($1) at a time.
select pg_advisory_xact_lock(hashtextextended('billing tariff ' || $1::text, 0));

-- name: rates
-- The rates of version $2 of plan $1, in the order of their key.
select kind, direction, match, rate_micros, first_increment_seconds, next_increment_seconds, connect_fee_micros,
       minimum_charge_micros, description
  from tariff_rates where plan = $1 and version = $2
 order by kind, direction, match;

-- name: insert_version
-- Version $2 of plan $1: $3 currency, $4 author, $5 effective (ms; null: $6 ms after now).
insert into tariffs (plan, version, currency, author, effective_ms)
values ($1, $2, $3, $4,
        coalesce($5::bigint, floor(extract(epoch from clock_timestamp()) * 1000)::bigint + $6::bigint))
returning effective_ms;

-- name: list
-- Every version, with how many rates it has.
select t.plan, t.version, t.currency, t.effective_ms, t.author, t.loaded_at, count(r.plan) as rates
  from tariffs t left join tariff_rates r using (plan, version)
 group by t.plan, t.version order by t.plan, t.version;

-- name: timeline
-- The ledger's timeline.
select timeline from ledger_meta;
