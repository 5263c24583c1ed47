-- name: identity
-- The ledger's timeline and partition count, the count that a migration under way goes to (null: none is), and the newest
-- incarnation of the balance store that it minted (null when there is none of this timeline).
select m.timeline, m.partitions, m.moving_to,
       (select max(number) from incarnations i where i.timeline = m.timeline) as incarnation
  from ledger_meta m;

-- name: mint_incarnation
-- The next incarnation of the balance store, above $1: $2 reason. Only under the lock REBUILD or before any consumer.
insert into incarnations (number, timeline, reason)
overriding system value
select greatest(nextval(pg_get_serial_sequence('incarnations', 'number')),
                coalesce((select max(number) from incarnations), 0) + 1, $1::bigint + 1), m.timeline, $2
  from ledger_meta m
returning number;

-- name: account_count
-- How many accounts partition $1 is the home of.
select count(*) from accounts where home_partition = $1;

-- name: balances_page
-- At most $3 accounts of partition $1 after $2 in id order: what is compared.
select a.id, a.currency, b.credit_micros - b.used_micros as balance_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.home_partition = $1 and a.id > $2
 order by a.id limit $3;

-- name: balances_of
-- The same of the accounts $2, where partition $1 is their home.
select a.id, a.currency, b.credit_micros - b.used_micros as balance_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.id = any($2::text[]) and a.home_partition = $1;

-- name: usage_position
-- Where the ledger stands in ($1 topic, $2 partition).
select next_offset from positions where topic = $1 and partition = $2;

-- name: balances_below
-- The same of the accounts $2, whose home is partition $1, as they were at usage offset $3, which the ledger has reached:
-- what was charged since is left out. Only accounts charged since have their usage looked through.
select a.id, a.currency, b.ledger_seq, b.credit_micros - b.used_micros + coalesce(u.since_micros, 0)::bigint as balance_micros,
       case when b.last_charged_offset < $3 then b.last_charged_offset
            else greatest(u.last_offset, (select last_offset from archived_accounts x
                                           where x.account_id = a.id and x.placed_ms = a.placed_ms
                                             and x.last_offset < $3)) end as last_charged_offset
  from accounts a
  join balances b on b.account_id = a.id
 cross join lateral (
     select sum(amount_micros) filter (where log_offset >= $3) as since_micros,
            max(log_offset) filter (where log_offset < $3 and amount_micros <> 0) as last_offset
       from usage where account_id = a.id and b.last_charged_offset >= $3
                    and partition = a.home_partition and log_offset >= a.usage_position
 ) u
 where a.id = any($2::text[]) and a.home_partition = $1;

-- name: settled_of
-- Which of the sessions ($2 kinds, $3 accounts, $4 sessions) were settled below offset $1 of their account's home
-- partition, or before it moved there.
select u.kind, u.account_id, u.session_id
  from unnest($2::text[], $3::text[], $4::text[]) as wanted (kind, account_id, session_id)
  join usage u using (kind, account_id, session_id)
  join accounts a on a.id = u.account_id
 where u.log_offset < $1 or u.partition <> a.home_partition;

-- name: settled_at
-- Where session ($1 account, $2 kind, $3 session) was settled; -1: before the account moved to its home partition.
select case when u.partition = a.home_partition then u.log_offset else -1 end
  from usage u join accounts a on a.id = u.account_id
 where u.account_id = $1 and u.kind = $2 and u.session_id = $3;

-- name: touched_since
-- At most $2 accounts that entries and settlements above journal entry $1 touched, with their home; and the newest entry.
with newest as materialized (select coalesce(max(id), 0) as id from journal),
touched as materialized (
    select account_id from postings where journal_id > $1 and journal_id <= (select id from newest) and account_id is not null
    union
    select account_id from journal where id > $1 and id <= (select id from newest) and account_id is not null
    limit $2
)
select n.id as newest, t.account_id, a.home_partition
  from newest n left join touched t on true left join accounts a on a.id = t.account_id;
