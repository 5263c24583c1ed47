-- name: identity
-- The ledger's timeline and partition count.
select timeline, partitions from ledger_meta;

-- name: position
-- Where the ledger stands in ($1 topic, $2 partition), and in log time (ms).
select next_offset, fingerprint, log_time_ms from positions where topic = $1 and partition = $2;

-- name: positions
-- Where the ledger stands in every partition of topic $1.
select partition, next_offset, fingerprint, log_time_ms, epoch, halted from positions where topic = $1 order by partition;

-- name: account
-- One account ($1) of partition $2 with its balance.
select a.currency, a.credit_limit_micros, a.recharge_below_micros, a.status, b.credit_micros, b.used_micros,
       b.excluded_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.id = $1 and a.home_partition = $2;

-- name: used_below
-- What account $1 was charged below offset $2 of its home partition, archived sessions included, and by which record
-- last; `archived`: it is not known any more, for some at or above $2 are archived.
select (u.used_micros + coalesce(a.amount_micros, 0))::bigint as used_micros,
       greatest(u.last_offset, a.last_offset) as last_charged_offset, coalesce(a.last_offset >= $2, false) as archived
  from (select coalesce(sum(amount_micros), 0) as used_micros,
               max(log_offset) filter (where amount_micros <> 0) as last_offset
          from usage where account_id = $1 and log_offset < $2) as u
  left join archived_accounts a on a.account_id = $1;

-- name: settled
-- Sessions of account $1 below offset $2, settled at or after log time $3 (ms).
select kind, session_id from usage where account_id = $1 and log_offset < $2 and log_time_ms >= $3;

-- name: partition_accounts
-- Every account of partition $1 with its balance.
select a.id, a.currency, a.credit_limit_micros, a.recharge_below_micros, a.status, b.credit_micros, b.used_micros,
       b.excluded_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.home_partition = $1 order by a.id;

-- name: partition_settled
-- Every session of partition $1 settled at or after log time $2 (ms).
select account_id, kind, session_id, log_time_ms from usage where partition = $1 and log_time_ms >= $2;

-- name: mint_first
-- As mint, only for a ledger that has neither an incarnation nor an entry. $1 reason.
insert into incarnations (timeline, reason)
select timeline, $1 from ledger_meta
 where not exists (select from incarnations) and not exists (select from journal)
returning number, timeline;
