-- name: usage
-- At most $5 settled sessions of account $1 before the one at ($2 log time in ms, $3 partition, $4 offset), newest first.
select kind, session_id, partition, log_offset, log_time_ms, price_time_ms, amount_micros, currency, plan,
       tariff_version, tariff_kind, direction, destination, origin, quantity, status, matched, journal_id, event_id,
       event_source
  from usage where account_id = $1 and (log_time_ms, partition, log_offset) < ($2::bigint, $3::integer, $4::bigint)
 order by log_time_ms desc, partition desc, log_offset desc limit $5;

-- name: findings
-- At most $2 findings with an id above $1.
select id, kind, found_at, account_id, partition, session_kind, session_id, kept_offset, refused_offset, detail
  from findings where id > $1 order by id limit $2;
