-- name: entries
-- The oldest $2 outbox rows of partition $1. No position is remembered between calls: a row is read until it is
-- deleted, so one that commits later with a lower id is not skipped.
select id, account_id, type, data, floor(extract(epoch from created_at) * 1000)::bigint as time_ms
  from outbox where partition = $1 order by id limit $2;

-- name: delete_entries
-- Kafka has acknowledged these outbox rows ($1).
delete from outbox where id = any($1::bigint[]);

-- name: versions
-- The oldest $1 catalogue rows that may be published now, of at most about $2 bytes together: assignments wait until
-- the account's entries up to theirs have left the outbox.
select id, key, type, data, time_ms, (select coalesce(catalogue, timeline) from ledger_meta) as catalogue
  from (select id, key, type, data, floor(extract(epoch from created_at) * 1000)::bigint as time_ms,
               sum(octet_length(data::text)) over (order by id) - octet_length(data::text) as before
          from (select * from catalogue_outbox c
                 where account_id is null
                    or not exists (select from outbox o
                                    where o.account_id = c.account_id and o.ledger_seq <= c.ledger_seq)
                 order by id limit $1) as oldest) as sized
 where before < $2
 order by id;

-- name: delete_versions
-- Kafka has acknowledged these catalogue rows ($1).
delete from catalogue_outbox where id = any($1::bigint[]);

-- name: brief
-- A relay that is stopped while it holds the versions' lock would hold up every opening of an account: $1 ms at most.
select set_config('idle_in_transaction_session_timeout', $1, true);

-- name: lock_versions
-- Wait until no transaction with a later version is committing ($1 lock space, $2 lock); held until the commit.
select pg_advisory_xact_lock($1::integer, $2::integer);

-- name: take_as_of
-- The ledger's clock in ms, never going back, under the exclusive lock; with the last catalogue row that is visible, and
-- the number of partitions that accounts' homes are worked out for up to there.
update catalogue_clock
   set as_of_ms = greatest(as_of_ms, floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
returning as_of_ms, (select coalesce(catalogue, timeline) from ledger_meta) as timeline,
          (select coalesce(moving_to, partitions) from ledger_meta) as partitions,
          (select coalesce(max(id), 0) from catalogue_outbox) as bound;

-- name: any_version_up_to
-- Whether a catalogue row up to id $1 still waits to be published.
select exists (select from catalogue_outbox where id <= $1);

-- name: not_silent
-- Should this session's client say nothing for $1 ms, let it go, with its locks.
select set_config('idle_session_timeout', $1, false);

-- name: waiting
-- What waits to be published: outbox rows and catalogue rows, each counted up to $1, and how old the oldest is (s).
select (select count(*) from (select from outbox limit $1) as few) as entries,
       (select count(*) from (select from catalogue_outbox limit $1) as few) as versions,
       (select coalesce(extract(epoch from clock_timestamp() - created_at), 0)::float8
          from outbox order by id limit 1) as entries_age_s,
       (select coalesce(extract(epoch from clock_timestamp() - created_at), 0)::float8
          from catalogue_outbox order by id limit 1) as versions_age_s;

-- name: join_relays
-- Be counted among the relays ($1 lock space, $2 lock) as long as this session lives.
select pg_try_advisory_lock_shared($1::integer, $2::integer);

-- name: count_relays
-- How many sessions hold the relays' shared lock ($1 lock space, $2 lock).
select count(distinct pid) from pg_locks
 where locktype = 'advisory' and classid = $1::integer::bigint::oid and objid = $2::integer::bigint::oid and objsubid = 2
   and database = (select oid from pg_database where datname = current_database()) and granted;

-- name: try_lock
-- Own ($1 lock space, $2 lock) as long as this session lives, if nobody else does.
select pg_try_advisory_lock($1::integer, $2::integer);

-- name: unlock
-- Let ($1 lock space, $2 lock) go.
select pg_advisory_unlock($1::integer, $2::integer);
