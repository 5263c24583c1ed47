-- name: usage
-- At most $3 settled sessions of account $1 below offset $2, newest first.
select kind, session_id, partition, log_offset, log_time_ms, price_time_ms, amount_micros, currency, plan,
       tariff_version, tariff_kind, direction, destination, origin, quantity, status, matched, journal_id, event_id,
       event_source
  from usage where account_id = $1 and log_offset < $2
 order by log_offset desc limit $3;

-- name: dead_letters
-- At most $4 dead letters after ($1 topic, $2 partition, $3 offset), in that order; $5 a reason, or null for all.
select topic, partition, log_offset, log_time_ms, reason, detail, key, value, headers
  from dead_letters
 where (topic, partition, log_offset) > ($1::text, $2::integer, $3::bigint) and ($5::text is null or reason = $5)
 order by topic, partition, log_offset limit $4;

-- name: dead_letter_counts
-- How many dead letters there are of each reason.
select reason, count(*) as records from dead_letters group by reason order by reason;

-- name: findings
-- At most $2 findings with an id above $1.
select id, kind, found_at, account_id, partition, session_kind, session_id, kept_offset, refused_offset, detail
  from findings where id > $1 order by id limit $2;
