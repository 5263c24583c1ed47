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
-- What account $1 was charged below offset $2 of its home partition, before it moved there and archived sessions included,
-- and by which record there last; `archived`: it is not known any more, for some at or above $2 are archived.
select (u.used_micros + coalesce(x.amount_micros, 0))::bigint as used_micros,
       greatest(u.last_offset, x.last_offset) as last_charged_offset, coalesce(x.last_offset >= $2, false) as archived
  from (select coalesce(sum(s.amount_micros), 0) as used_micros,
               max(s.log_offset) filter (where s.amount_micros <> 0 and s.partition = a.home_partition
                                           and s.log_offset >= a.usage_position) as last_offset
          from usage s join accounts a on a.id = s.account_id
         where s.account_id = $1 and (s.log_offset < $2 or s.partition <> a.home_partition)) as u
  left join (select r.amount_micros, case when r.placed_ms = a.placed_ms then r.last_offset end as last_offset
               from archived_accounts r join accounts a on a.id = r.account_id where r.account_id = $1) as x on true;

-- name: settled
-- Sessions of account $1 below offset $2 of its home partition, or from before it moved there, settled at or after log
-- time $3 (ms).
select s.kind, s.session_id
  from usage s join accounts a on a.id = s.account_id
 where s.account_id = $1 and (s.log_offset < $2 or s.partition <> a.home_partition) and s.log_time_ms >= $3;

-- name: partition_accounts
-- Every account of partition $1 with its balance.
select a.id, a.currency, a.credit_limit_micros, a.recharge_below_micros, a.status, b.credit_micros, b.used_micros,
       b.excluded_micros, b.ledger_seq, b.last_charged_offset
  from accounts a join balances b on b.account_id = a.id
 where a.home_partition = $1 order by a.id;

-- name: partition_settled
-- Every session of partition $1's accounts settled at or after log time $2 (ms), wherever its record is.
select s.account_id, s.kind, s.session_id, s.log_time_ms
  from usage s join accounts a on a.id = s.account_id
 where a.home_partition = $1 and s.log_time_ms >= $2;

-- name: mint_first
-- As mint, only for a ledger that has neither an incarnation nor an entry. $1 reason.
insert into incarnations (timeline, reason)
select timeline, $1 from ledger_meta
 where not exists (select from incarnations) and not exists (select from journal)
returning number, timeline;
