-- name: look_now
-- The open intent of payment $1, if there is one, is looked at without waiting for its time.
update recharge_intents set next_at = least(next_at, clock_timestamp())
 where payment_id = $1 and state not in ('confirmed', 'cancelled', 'refused')
returning id;

-- name: known
-- Which of the payments $1 an intent of this ledger has.
select payment_id from recharge_intents where payment_id = any($1::text[]);
