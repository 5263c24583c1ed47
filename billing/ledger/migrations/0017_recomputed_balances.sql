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
create function recompute_balance() returns trigger language plpgsql security definer as $$
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

-- The catalogue's name on billing.tariffs, where it is no longer that of the timeline: a restored ledger begins a new
-- timeline, but goes on with the catalogue that is in the log (S28).
alter table ledger_meta add column catalogue text;

-- As before, but what is put back from the log took effect long ago.
create or replace function catalogue_lead() returns trigger language plpgsql as $$
declare
    floor_ms bigint;
begin
    if current_setting('billing.putting_back', true) = 'on' then
        return null;
    end if;
    perform pg_advisory_xact_lock_shared(1651076204, 2);
    select greatest(as_of_ms, floor(extract(epoch from clock_timestamp()) * 1000)::bigint) into floor_ms
      from catalogue_clock;
    if new.effective_ms < floor_ms + 600000 then
        raise exception 'effective % is less than 600 s after %', new.effective_ms, floor_ms
            using errcode = 'check_violation', constraint = 'catalogue_lead';
    end if;
    return null;
end $$;
