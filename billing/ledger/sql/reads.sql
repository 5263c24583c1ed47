-- name: usage
-- At most $3 settled sessions of account $1 below offset $2, newest first.
select kind, session_id, partition, log_offset, log_time_ms, price_time_ms, amount_micros, currency, plan,
       tariff_version, tariff_kind, direction, destination, origin, quantity, status, matched, journal_id, event_id,
       event_source
  from usage where account_id = $1 and log_offset < $2
 order by log_offset desc limit $3;

-- name: findings
-- At most $2 findings with an id above $1.
select id, kind, found_at, account_id, partition, session_kind, session_id, kept_offset, refused_offset, detail
  from findings where id > $1 order by id limit $2;
