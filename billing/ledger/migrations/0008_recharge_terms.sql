-- A threshold, an increment and a payment method come together or not at all; the customer may be made later.
-- Not validated: accounts that were opened before keep what they have until they are changed.
alter table accounts add constraint recharge_terms
    check (num_nonnulls(recharge_below_micros, recharge_by_micros, payment_method) in (0, 3)) not valid;
