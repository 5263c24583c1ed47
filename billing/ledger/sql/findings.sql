-- name: lock
-- Findings are recorded one at a time ($1 lock space, $2 lock), so that each is recorded once; held until the commit.
select pg_advisory_xact_lock($1::integer, $2::integer);

-- name: open
-- The open finding of kind $1 about account $2 (null: about none) and subject $3 (null: any).
select id from open_findings
 where kind = $1 and account_id is not distinct from $2 and ($3::text is null or session_id = $3)
 order by id limit 1;

-- name: ever
-- A finding of kind $1 about subject $3 (of kind $2), open or not.
select id from findings where kind = $1 and session_kind = $2 and session_id = $3 limit 1;

-- name: add
-- Record a finding: $1 kind, $2 account, $3 partition, $4 kind of subject, $5 subject, $6 detail. Returns its number.
insert into findings (kind, account_id, partition, session_kind, session_id, detail)
values ($1, $2, $3, $4, $5, $6) returning id;

-- name: resolve
-- Finding $1 is resolved: $2 author, $3 reason, $4 action, $5 detail. No row when it was before.
insert into finding_resolutions (finding_id, author, reason, action, detail) values ($1, $2, $3, $4, $5)
    on conflict (finding_id) do nothing
returning finding_id;

-- name: page
-- At most $2 findings with an id above $1; $3 only open ones, $4 of this account, $5 of this kind (null: any).
select f.*, r.resolved_at, r.author, r.reason, r.action, r.detail as resolution, a.currency
  from findings f left join finding_resolutions r on r.finding_id = f.id left join accounts a on a.id = f.account_id
 where f.id > $1 and (not $3 or r.finding_id is null) and ($4::text is null or f.account_id = $4)
   and ($5::text is null or f.kind = $5)
 order by f.id limit $2;

-- name: one
-- Finding $1 with what became of it.
select f.*, r.resolved_at, r.author, r.reason, r.action, r.detail as resolution, a.currency
  from findings f left join finding_resolutions r on r.finding_id = f.id left join accounts a on a.id = f.account_id
 where f.id = $1;

-- name: open_counts
-- Open findings per kind.
select kind, count(*) as findings from open_findings group by kind order by kind;

-- name: freezing
-- The oldest open finding of account $1, other than $2, for which it stays frozen.
select id, kind from open_findings
 where account_id = $1 and id <> $2 and (kind in ('books_differ', 'entries_lost', 'ledger_behind') or kind like 'payment_%')
 order by id limit 1;

-- name: accepted_micros
-- The difference that an operator let stand last for account $1, null when there is none.
select (r.detail ->> 'difference_micros')::bigint
  from findings f join finding_resolutions r on r.finding_id = f.id
 where f.account_id = $1 and f.kind = 'books_differ' and r.action = 'accepted'
   and not exists (select from findings later where later.account_id = f.account_id and later.kind = f.kind
                     and later.id > f.id)
 order by f.id desc limit 1;

-- name: has_outbox
-- Whether entries of account $1 still wait to be published.
select exists (select from outbox where account_id = $1);

-- name: proof
-- What account $1's own entries say beside its row: credit by its entries' postings, usage by its sessions, its sequence.
select b.credit_micros, b.used_micros, b.ledger_seq, b.last_charged_offset,
       coalesce(j.credit_micros, 0)::bigint as posted_credit_micros, u.used_micros as posted_used_micros,
       j.entries, j.last_seq, u.last_offset as posted_last_offset
  from balances b
 cross join lateral (
     select (select sum(p.amount_micros) from journal e join postings p on p.journal_id = e.id
              where e.account_id = b.account_id and p.account_id = b.account_id) as credit_micros,
            count(*) as entries, max(ledger_seq) as last_seq
       from journal where account_id = b.account_id) as j
 cross join lateral (
     select coalesce(sum(amount_micros), 0)::bigint as used_micros, max(last_offset) as last_offset
       from (select sum(s.amount_micros) as amount_micros,
                    max(s.log_offset) filter (where s.amount_micros <> 0 and s.partition = a.home_partition
                                                and s.log_offset >= a.usage_position) as last_offset
               from usage s join accounts a on a.id = s.account_id where s.account_id = b.account_id
             union all
             select x.amount_micros, case when x.placed_ms = a.placed_ms then x.last_offset end
               from archived_accounts x join accounts a on a.id = x.account_id
              where x.account_id = b.account_id) as charged) as u
 where b.account_id = $1;

-- name: recompute
-- Set account $1's row to what its entries say: $2 finding, $3 author, $4 reason.
insert into balance_recomputations (account_id, finding_id, author, reason, credit_micros, used_micros, last_charged_offset)
select account_id, $2, $3, $4, credit_micros, used_micros, last_charged_offset from balances where account_id = $1;

-- name: frozen
-- Whether account $1 is frozen.
select coalesce((select frozen from recharge_freezes where account_id = $1), false);

-- name: agreeable
-- Open findings of kinds that end by themselves once the books of their account agree; $1 accounts.
select id, account_id, kind, detail from open_findings
 where account_id = any($1::text[]) and kind in ('books_differ', 'entries_lost');
