-- name: meta
-- The ledger's identity (no partitions while accounts move to others) and the schema version it is at.
select timeline, case when moving_to is null then partitions else 0 end as partitions,
       (select max(version) from schema_migrations) as version
  from ledger_meta;

-- name: claim
-- Raise the epoch of ($1 topic, $2 partition) for the claimant $3; no row when halted or absent.
update positions
   set epoch = epoch + 1, nonce = $3
 where topic = $1 and partition = $2 and halted is null
returning epoch, next_offset, fingerprint;

-- name: halted
-- Why ($1 topic, $2 partition) is halted; null when it is not, no row when there is no such partition.
select halted from positions where topic = $1 and partition = $2;

-- name: lock_position
-- Lock ($1 topic, $2 partition) against other settlements and against openings of accounts; the position moves only in
-- a transaction that says so (0021_positions.post.sql).
select p.next_offset, p.fingerprint, p.epoch, p.nonce, p.halted, m.timeline,
       case when m.moving_to is null then m.partitions else 0 end as partitions,
       set_config('billing.locked_position', p.topic || '-' || p.partition, true)
  from positions p cross join ledger_meta m
 where p.topic = $1 and p.partition = $2
   for update of p;

-- name: known_accounts
-- Which of the accounts $1 the ledger has.
select id, home_partition, usage_position from accounts where id = any($1::text[]);

-- name: look_up
-- For this transaction, make every join one index look-up per row: its cost is the batch's, whatever a plan made while
-- the tables were small believes about their size.
set local enable_seqscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_material = off;

-- name: settled_before
-- Which of the sessions ($1 accounts, $2 kinds, $3 sessions) the ledger has, with what counts.
select u.account_id, u.kind, u.session_id, u.log_offset as kept_offset, u.amount_micros, u.price_time_ms, u.tariff_kind,
       u.direction, u.destination, u.origin, u.quantity, u.status, u.matched
  from unnest($1::text[], $2::text[], $3::text[]) as wanted (account_id, kind, session_id)
  join usage u using (account_id, kind, session_id);

-- name: strange_account
-- One of the accounts $1 that the ledger does not have, or has in another currency than $2 says; no row when there is none.
select w.account_id, w.currency, a.currency as ledger_currency
  from unnest($1::text[], $2::text[]) as w (account_id, currency)
  left join accounts a on a.id = w.account_id
 where a.currency is distinct from w.currency limit 1;

-- name: next_entry
-- The number of an entry to come.
select nextval(pg_get_serial_sequence('journal', 'id'));

-- name: add_settlement
-- Entry $1: the settlement of partition $2, offsets $3 to $4. Its lines follow, and move the balances.
insert into journal (id, kind, author, partition, from_offset, to_offset)
values ($1, 'settlement', 'postflight', $2, $3, $4);

-- name: add_dead_letter
-- Store one record that no money moves for, with its bytes: $1 topic, $2 partition, $3 offset, $4 log time in ms,
-- $5 reason, $6 detail, $7 key, $8 value, $9 headers, $10 the account that it is about.
insert into dead_letters (topic, partition, log_offset, log_time_ms, reason, detail, key, value, headers, account_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    on conflict do nothing;

-- name: add_finding
-- Record that the completion at $6 differs from the one that counts, at $5: $1 partition, $2 account, $3 session kind,
-- $4 session id, $7 both as JSON.
insert into findings (kind, partition, account_id, session_kind, session_id, kept_offset, refused_offset, detail)
values ('differing_completion', $1, $2, $3, $4, $5, $6, $7);

-- name: advance
-- Move the position of ($1 topic, $2 partition) to $3, last record $4 with log time $5.
update positions
   set next_offset = $3, fingerprint = $4, log_time_ms = greatest(log_time_ms, $5)
 where topic = $1 and partition = $2;

-- name: halt
-- Halt ($1 topic, $2 partition) with the reason $5, if owner ($3 epoch, $4 nonce) still is the owner.
update positions set halted = $5
 where topic = $1 and partition = $2 and epoch = $3 and nonce = $4 and halted is null;
