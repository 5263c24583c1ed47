-- Cards as the gateway keeps them: what a payment may name. An account's card is saved once with its customer, before
-- its first intent; one that was changed since is not saved (`customer`, `payment_method` are what was).
create table recharge_cards (
    account_id text primary key references accounts,
    customer_attempt integer not null default 1 check (customer_attempt >= 1),  -- numbers in the idempotency keys;
    card_attempt integer not null default 1 check (card_attempt >= 1),          -- persisted before the call
    customer text,
    payment_method text,
    saved_at timestamptz,
    declines integer not null default 0 check (declines >= 0),  -- in a row, of cards that could not be saved
    declined_at timestamptz,
    decline_code text,
    check (num_nonnulls(customer, payment_method, saved_at) in (0, 3)),
    check ((declines = 0) = (declined_at is null))
) with (fillfactor = 50);

create trigger no_delete before delete or truncate on recharge_cards
    for each statement execute function refuse_change();
