-- name: layout
-- The ledger's number of partitions, the one that a migration under way goes to (null: none is), and schema version.
select partitions, moving_to, (select max(version) from schema_migrations) as version from ledger_meta;

-- name: is_owner
-- Whether this connection may move accounts.
select pg_has_role(current_user, c.relowner, 'usage') from pg_class c where c.oid = 'accounts'::regclass;

-- name: lock
-- One migration at a time ($1 lock space, $2 lock), as long as this session lives.
select pg_try_advisory_lock($1::integer, $2::integer);

-- name: no_relay
-- Whether no relay runs ($1 lock space, $2 lock); none can join until the commit.
select pg_try_advisory_xact_lock($1::integer, $2::integer);

-- name: waiting
-- The oldest entry and the oldest catalogue version that wait to be published; null where none does.
select (select min(id) from outbox) as entry, (select min(id) from catalogue_outbox) as version;

-- name: lock_positions
-- Hold every partition against settlements, and openings of accounts, until the commit.
select topic, partition, next_offset, log_time_ms, halted from positions order by topic, partition for update;

-- name: begin
-- Partitions $1 are going to be $2: $3 author, $4 reason, $5 usage offset by partition. Returns number and time.
insert into partition_migrations (from_partitions, to_partitions, author, reason, cuts, moved_ms)
select $1, $2, $3, $4, $5::jsonb,
       greatest(floor(extract(epoch from clock_timestamp()) * 1000)::bigint,
                (select coalesce(max(moved_ms), 0) + 1 from partition_migrations))
returning id, moved_ms;

-- name: fence
-- Whoever owned a partition owns it no more.
update positions set epoch = epoch + 1, nonce = 'partitions';

-- name: add_positions
-- Positions of topic $1 for the new partitions $2, from offsets $3 on, at log time $4 (ms).
insert into positions (topic, partition, next_offset, log_time_ms)
select $1, p, o, $4 from unnest($2::integer[], $3::bigint[]) as new (p, o);

-- name: create_moving
-- Where the accounts that move are copied to; emptied at the end of the transaction.
create temporary table if not exists moving (account_id text not null, to_partition integer not null)
    on commit delete rows;

-- name: homes
-- Every account with its home.
select id, home_partition from accounts order by id;

-- name: move
-- Move the accounts of `moving`, as part of migration $1.
insert into account_moves
       (account_id, migration_id, from_partition, from_position, until_position, to_partition, to_position)
select a.id, $1, a.home_partition, a.usage_position, old.next_offset, v.to_partition, new.next_offset
  from moving v
  join accounts a on a.id = v.account_id
  join positions old on old.topic = 'usage.events' and old.partition = a.home_partition
  join positions new on new.topic = 'usage.events' and new.partition = v.to_partition
 order by a.id;

-- name: announce
-- The plans of the accounts that migration $1 moved, with their new place, for billing.tariffs.
insert into catalogue_outbox (key, type, account_id, data)
select 'plan:' || p.account_id || ':' || p.version || ':' || a.placed_ms, 'catalogue.assignment.v1', p.account_id,
       jsonb_build_object('timeline', m.timeline, 'account', p.account_id, 'version', p.version, 'plan', p.plan,
                          'effective_ms', p.effective_ms, 'home_partition', a.home_partition,
                          'usage_position', a.usage_position, 'placed_ms', a.placed_ms)
  from account_moves v
  join accounts a on a.id = v.account_id
  join plan_assignments p on p.account_id = v.account_id
 cross join ledger_meta m
 where v.migration_id = $1
 order by p.account_id, p.version;

-- name: move_to
-- From here on the ledger has accounts for $1 partitions, and no consumer fits until `complete`.
update ledger_meta set moving_to = $1 where partitions < $1 and moving_to is null;

-- name: complete
-- The migration to $1 partitions is complete.
update ledger_meta set partitions = moving_to, moving_to = null where moving_to = $1;

-- name: migrations
-- Every migration, the newest first, and how many accounts it moved.
select m.id, m.from_partitions, m.to_partitions, m.author, m.reason, m.moved_at, m.moved_ms, m.cuts,
       (select count(*) from account_moves v where v.migration_id = m.id) as accounts
  from partition_migrations m order by m.id desc;

-- name: recent_migrations
-- Migrations since $1 (ms), in order, with the offsets at which accounts left their partitions.
select id, cuts from partition_migrations where moved_ms >= $1 order by id;

-- name: places_before
-- The accounts that moved in migration $1 or later, as they were before the first of these moves.
select distinct on (account_id) account_id, from_partition, from_position
  from account_moves where migration_id >= $1 order by account_id, migration_id;

-- name: moved_in
-- The accounts that migration $1 moved, with where they live now.
select a.id, a.home_partition from account_moves v join accounts a on a.id = v.account_id where v.migration_id = $1;
