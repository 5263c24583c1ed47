-- name: ensure
-- Account $1 has a row.
insert into recharge_cards (account_id) select id from accounts where id = $1 on conflict do nothing;

-- name: show
-- The card of account $1 as its terms have it, and how often saving it was tried.
select a.customer, a.payment_method, a.status, c.customer_attempt, c.card_attempt, m.timeline,
       coalesce(a.customer = c.customer and a.payment_method = c.payment_method, false) as saved
  from recharge_cards c join accounts a on a.id = c.account_id cross join ledger_meta m
 where c.account_id = $1;

-- name: next_customer_attempt
-- Under the key of attempt $2 nothing can be had any more for account $1.
update recharge_cards set customer_attempt = customer_attempt + 1 where account_id = $1 and customer_attempt = $2;

-- name: next_card_attempt
-- The same for the card.
update recharge_cards set card_attempt = card_attempt + 1 where account_id = $1 and card_attempt = $2;

-- name: saved
-- The gateway keeps payment method $3 with customer $2 for account $1.
update recharge_cards
   set customer = $2, payment_method = $3, saved_at = clock_timestamp(), declines = 0, declined_at = null,
       decline_code = null
 where account_id = $1;

-- name: declined
-- The card of account $1 could not be saved at attempt $2, because of $3: it counts as a decline.
update recharge_cards
   set declines = declines + 1, declined_at = clock_timestamp(), decline_code = $3, card_attempt = card_attempt + 1
 where account_id = $1 and card_attempt = $2;
