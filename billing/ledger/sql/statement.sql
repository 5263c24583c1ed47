-- name: booked_since
-- What account $1 was moved by from the moment $2 on: entries of its own, and settlements, which have its sessions; where
-- some of these are archived, the settlement's line has them.
select (coalesce((select sum(p.amount_micros)
                    from journal j join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
                   where j.account_id = $1 and j.booked_at >= $2), 0)
      - coalesce((select sum(u.amount_micros) from usage u join journal j on j.id = u.journal_id
                   where u.account_id = $1 and j.booked_at >= $2
                     and not exists (select from archived_settlements s where s.journal_id = u.journal_id)), 0)
      + coalesce((select sum(p.amount_micros)
                    from (select distinct journal_id from archived_settlements) s
                    join journal j on j.id = s.journal_id
                    join postings p on p.journal_id = s.journal_id
                   where j.booked_at >= $2 and p.account_id = $1), 0))::bigint as amount_micros;

-- name: archived
-- What settlements booked in [$2, $3) charged account $1 of which some sessions are archived.
select coalesce(sum(p.amount_micros), 0)::bigint as amount_micros
  from (select distinct journal_id from archived_settlements) s
  join journal j on j.id = s.journal_id
  join postings p on p.journal_id = s.journal_id
 where j.booked_at >= $2 and j.booked_at < $3 and p.account_id = $1;

-- name: usage
-- Charged sessions of account $1 whose settlement was booked in [$2, $3), by kind, direction and destination as the
-- tariff matched it. Quantity is seconds, segments or units. Without settlements that are archived in part.
select u.tariff_kind as kind, u.direction, u.matched, coalesce(r.description, '') as description,
       count(*) as sessions, sum(u.quantity)::bigint as quantity, -sum(u.amount_micros)::bigint as amount_micros
  from usage u
  join journal j on j.id = u.journal_id
  left join tariff_rates r on r.plan = u.plan and r.version = u.tariff_version and r.kind = u.tariff_kind
                          and r.direction = u.direction and r.match = u.matched
 where u.account_id = $1 and j.booked_at >= $2 and j.booked_at < $3
   and not exists (select from archived_settlements s where s.journal_id = u.journal_id)
 group by 1, 2, 3, 4 order by 1, 2, 3, 4;

-- name: entries
-- Entries on account $1 booked in [$2, $3) that moved its balance, settlements left out, in order.
select j.id as entry, j.kind, j.origin, j.ledger_seq, j.booked_at, j.author, j.reason, j.corrects_id as corrects, j.detail,
       p.amount_micros
  from journal j
  join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
 where j.account_id = $1 and j.booked_at >= $2 and j.booked_at < $3
 order by j.ledger_seq;

-- name: clock
-- The ledger's clock.
select clock_timestamp() as now;
