-- name: new_timeline
-- Begin timeline $1 for the ledger; the catalogue keeps its name. Returns the timeline before.
with before as materialized (select timeline from ledger_meta)
update ledger_meta set catalogue = coalesce(catalogue, timeline), timeline = $1
returning (select timeline from before) as before;

-- name: putting_back
-- What this transaction puts back took effect long ago.
select set_config('billing.putting_back', 'on', true);

-- name: has_tariff
-- Whether the ledger has version $2 of plan $1.
select exists (select from tariffs where plan = $1 and version = $2);

-- name: add_tariff
-- Version $2 of plan $1 as the log has it: $3 currency, $4 author, $5 effective (ms).
insert into tariffs (plan, version, currency, author, effective_ms) values ($1, $2, $3, $4, $5);

-- name: add_rates
-- Its rates, as JSON ($3).
insert into tariff_rates (plan, version, kind, direction, match, rate_micros, first_increment_seconds,
                          next_increment_seconds, connect_fee_micros, minimum_charge_micros, description)
select $1, $2, r.kind, r.direction, r.match, r.rate_micros, r.first_increment_seconds, r.next_increment_seconds,
       r.connect_fee_micros, r.minimum_charge_micros, r.description
  from jsonb_to_recordset($3::jsonb) as r (kind text, direction text, match text, rate_micros bigint,
       first_increment_seconds integer, next_increment_seconds integer, connect_fee_micros bigint,
       minimum_charge_micros bigint, description text);

-- name: add_assignment
-- Version $2 of the plan of account $1 as the log has it: $3 plan, $4 effective (ms), where the account exists.
insert into plan_assignments (account_id, version, plan, effective_ms)
select id, $2, $3, $4 from accounts where id = $1
    on conflict do nothing
returning version;

-- name: newest_plan
-- The newest plan that account $1 was assigned is the one that it shows.
update accounts set plan = $2 where id = $1 and plan <> $2;

-- name: entries_at
-- What the ledger has at these places ($1 accounts, $2 ledger_seqs): whether the account, and which entry.
select w.account_id, w.ledger_seq, exists (select from accounts a where a.id = w.account_id) as known,
       j.kind, j.origin, j.reason,
       (select coalesce(sum(p.amount_micros), 0)::bigint from postings p
         where p.journal_id = j.id and p.account_id = w.account_id) as amount_micros
  from unnest($1::text[], $2::bigint[]) as w (account_id, ledger_seq)
  left join journal j on j.account_id = w.account_id and j.ledger_seq = w.ledger_seq;

-- name: any_finding
-- A finding of kind $1 about $2, open or not.
select id from findings where kind = $1 and session_id = $2 limit 1;
