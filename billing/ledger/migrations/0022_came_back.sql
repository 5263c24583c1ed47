-- A refund that failed and a dispute that was won are entries of the same origin the other way round: all that is booked of
-- a payment is at most the payment, in either direction. At commit, when the postings are there.
create or replace function check_taken_back() returns trigger language plpgsql as $$
declare
    payment bigint;
    payment_left bigint;
begin
    perform from balances where account_id = new.account_id for update;
    select sum(p.amount_micros) filter (where j.id = new.corrects_id), sum(p.amount_micros)
      into payment, payment_left
      from journal j
      join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
     where j.id = new.corrects_id
        or j.corrects_id = new.corrects_id and j.origin in ('payment_refund', 'chargeback');
    if payment_left < 0 then
        raise exception 'more is taken back than entry % credited', new.corrects_id
            using errcode = 'check_violation', constraint = 'taken_back_at_most';
    end if;
    if payment_left > payment then
        raise exception 'more of entry % came back than was taken', new.corrects_id
            using errcode = 'check_violation', constraint = 'taken_back_at_most';
    end if;
    return null;
end $$;
