-- name: sessions
-- The settled sessions of account $1 with the id $2 (of kind $3, or null: of any), what each cost and what corrections
-- gave back of it.
select u.kind, u.amount_micros,
       coalesce((select sum(c.amount_micros) from usage_corrections c
                  where c.account_id = u.account_id and c.kind = u.kind and c.session_id = u.session_id), 0)::bigint
           as back_micros
  from usage u
 where u.account_id = $1 and u.session_id = $2 and u.kind = any(array['call', 'message', 'item'])
   and ($3::text is null or u.kind = $3)
 order by u.kind;

-- name: add_refund
-- Entry $4 refunds $5 of session ($1 account, $2 kind, $3 id).
insert into usage_corrections (account_id, kind, session_id, journal_id, amount_micros) values ($1, $2, $3, $4, $5);

-- name: refund_of
-- What entry $1 refunded.
select kind, session_id, amount_micros from usage_corrections where journal_id = $1;

-- name: payment
-- The entry that credited recharge $1, its amount, and what was taken back of it; no row for no such recharge, entry_id
-- null before it is credited.
select i.account_id, i.currency, j.id as entry_id, i.payment_id,
       (select sum(p.amount_micros) from postings p
         where p.journal_id = j.id and p.ledger_account = 'customer')::bigint as amount_micros,
       coalesce((select -sum(p.amount_micros) from journal t
                   join postings p on p.journal_id = t.id and p.ledger_account = 'customer'
                  where t.corrects_id = j.id and t.origin in ('payment_refund', 'chargeback')), 0)::bigint as back_micros
  from recharge_intents i
  left join journal j on j.account_id = i.account_id and j.ledger_seq = i.credit_seq
 where i.id = $1;

-- name: by_key
-- The entry under the key $1: its account, what it changed for the customer, what it corrects.
select j.id, j.account_id, j.ledger_seq, j.corrects_id, j.detail, p.amount_micros
  from journal j join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
 where j.idempotency_key = $1;
