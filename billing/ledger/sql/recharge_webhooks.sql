-- name: look_now
-- The open intent of payment $1, if there is one, is looked at without waiting for its time.
update recharge_intents set next_at = least(next_at, clock_timestamp())
 where payment_id = $1 and state not in ('confirmed', 'cancelled', 'refused')
returning id;

-- name: chargeback_of
-- What was booked under the key $1: the entry, its account and its amount for the customer.
select j.id as entry_id, j.account_id, p.amount_micros
  from journal j join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
 where j.idempotency_key = $1;
