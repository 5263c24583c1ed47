-- name: meta
-- The ledger's identity and the schema version it is at.
select timeline, partitions, (select max(version) from schema_migrations) as version
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
-- Lock ($1 topic, $2 partition) against other settlements and against openings of accounts.
select p.next_offset, p.fingerprint, p.epoch, p.nonce, p.halted, m.timeline, m.partitions
  from positions p cross join ledger_meta m
 where p.topic = $1 and p.partition = $2
   for update of p;

-- name: known_accounts
-- Which of the accounts $1 the ledger has.
select id, home_partition, usage_position from accounts where id = any($1::text[]);

-- name: prepare_charges
-- Where a batch's charges are copied to; one per connection, emptied at the end of each transaction. The settings make
-- every join below one index look-up per charge: its cost is the batch's, whatever a plan made while the tables were
-- small believes about their size.
create temporary table if not exists charges (
    account_id text, kind text, session_id text, log_offset bigint, log_time_ms bigint, price_time_ms bigint,
    amount_micros bigint, currency text, plan text, tariff_version integer, tariff_kind text, direction text,
    destination text, origin text, quantity bigint, status text, matched text, event_id text, event_source text
) on commit delete rows;
set local enable_seqscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_material = off;

-- name: lock_balances
-- Lock the balances of the batch's accounts in account order (so that no two transactions wait for each other);
-- returns one account that is missing or has another currency, with what the ledger says, or no row.
with wanted as materialized (
    select distinct account_id, currency from charges
), locked as materialized (
    select b.account_id
      from (select distinct account_id from charges) as w
      join balances b on b.account_id = w.account_id
     order by b.account_id
       for update of b
)
select w.account_id, w.currency, a.currency as ledger_currency
  from wanted w
  left join accounts a on a.id = w.account_id
 where (select count(*) from locked) >= 0  -- all of them, before anything else
   and a.currency is distinct from w.currency
 limit 1;

-- name: settle
-- Settle the charges of partition $1, offsets $2 to $3, as one entry: usage rows (a session that is already there
-- stays), postings aggregated per customer and for the partition's revenue, balances. Returns how many sessions were
-- fresh and their amount per currency.
with entry_id as materialized (
    select nextval(pg_get_serial_sequence('journal', 'id')) as id
), fresh as (
    insert into usage (account_id, kind, session_id, partition, log_offset, log_time_ms, price_time_ms, amount_micros,
                       currency, plan, tariff_version, tariff_kind, direction, destination, origin, quantity, status,
                       matched, event_id, event_source, journal_id)
    select account_id, kind, session_id, $1::integer, log_offset, log_time_ms, price_time_ms, amount_micros,
           currency, plan, tariff_version, tariff_kind, direction, destination, origin, quantity, status,
           matched, event_id, event_source, case when amount_micros <> 0 then (select id from entry_id) end
      from charges
     order by account_id, kind, session_id
        on conflict (account_id, kind, session_id) do nothing
    returning account_id, currency, amount_micros, log_offset
), totals as materialized (
    select account_id, currency, sum(amount_micros)::bigint as amount_micros,
           max(log_offset) filter (where amount_micros <> 0) as last_offset,
           count(*) as sessions
      from fresh group by account_id, currency
), entry as (
    insert into journal (id, kind, author, partition, from_offset, to_offset)
    select id, 'settlement', 'postflight', $1, $2::bigint, $3::bigint from entry_id
     where exists (select from totals where amount_micros <> 0)
), posted as (
    insert into postings (journal_id, ledger_account, account_id, partition, currency, amount_micros)
    select (select id from entry_id), 'customer', account_id, null, currency, -amount_micros
      from totals where amount_micros <> 0
    union all
    select (select id from entry_id), 'revenue', null, $1, currency, sum(amount_micros)::bigint
      from totals group by currency having sum(amount_micros) <> 0
), moved as (
    update balances b
       set used_micros = b.used_micros + t.amount_micros,
           last_charged_offset = greatest(b.last_charged_offset, t.last_offset)
      from totals t
     where b.account_id = t.account_id
)
select currency, sum(sessions)::bigint as sessions, sum(amount_micros)::bigint as amount_micros
  from totals group by currency;

-- name: duplicates
-- Charges of the batch whose session had been settled before it (below offset $1), with what stands in the ledger.
select c.account_id, c.kind, c.session_id, c.log_offset,
       u.log_offset as kept_offset, u.amount_micros, u.price_time_ms, u.tariff_kind, u.direction, u.destination,
       u.origin, u.quantity, u.status, u.matched
  from charges c
  join usage u using (account_id, kind, session_id)
 where u.log_offset < $1;

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
