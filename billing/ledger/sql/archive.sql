-- name: parts
-- The partitions of `usage`.
select inhrelid::regclass::text as part from pg_inherits where inhparent = 'usage'::regclass order by inhrelid;

-- name: bounds
-- Per partition of the log: before which log time (ms) no repeat can reach a session. One that reads nothing has none.
select partition, log_time_ms - 91 * 86400000::bigint as before_ms from positions where topic = 'usage.events';

-- name: lock
-- One archive at a time ($1 lock space, $2 lock), as long as this session lives.
select pg_try_advisory_lock($1::integer, $2::integer);

-- name: is_owner
-- Whether this connection may archive.
select pg_has_role(current_user, c.relowner, 'usage') from pg_class c where c.oid = 'usage'::regclass;

-- name: add
-- Name an archive: $1 author, $2 reason, $3 before which log time, $4 file, $5 its SHA-256, $6 sessions, $7 amounts.
-- Sessions may be deleted in this transaction from now on, once, and exactly these.
with archive as (
    insert into usage_archives (author, reason, before_ms, file, sha256, sessions, amounts)
    values ($1, $2, $3, $4, $5, $6, $7)
    returning id
)
select id, set_config('billing.archive', id::text, true) from archive;

-- name: list
-- Every archive, in order.
select id, archived_at, author, reason, before_ms, file, sha256, sessions, amounts from usage_archives order by id;
