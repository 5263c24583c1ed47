-- A balance row that is not the sum of its entries (changed by hand, a disk that lies) is set to that sum by a row here,
-- which says who wanted it and what it was. Nothing that was booked changes.
create table balance_recomputations (
    id bigint generated always as identity primary key,
    account_id text not null references accounts,
    finding_id bigint references findings,
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    recomputed_at timestamptz not null default now(),
    credit_micros bigint not null,                            -- before
    used_micros bigint not null,
    last_charged_offset bigint
);

-- A trigger, so that the sums are the database's own whoever asks.
create function recompute_balance() returns trigger language plpgsql as $$
begin
    update balances b
       set credit_micros = coalesce(j.credit_micros, 0), used_micros = coalesce(u.used_micros, 0),
           last_charged_offset = u.last_offset
      from (select sum(p.amount_micros) as credit_micros
              from journal e join postings p on p.journal_id = e.id
             where e.account_id = new.account_id and p.account_id = new.account_id) as j,
           (select sum(amount_micros) as used_micros,
                   max(log_offset) filter (where amount_micros <> 0) as last_offset
              from usage where account_id = new.account_id) as u
     where b.account_id = new.account_id;
    return null;
end $$;

create trigger recompute_balance after insert on balance_recomputations
    for each row execute function recompute_balance();
create trigger append_only before update or delete or truncate on balance_recomputations
    for each statement execute function refuse_change();
