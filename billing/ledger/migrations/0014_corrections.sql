-- Corrections are new entries that say what they correct: another entry (corrects_id) or settled sessions
-- (usage_corrections). Nothing here touches what was booked.

alter table journal add column corrects_id bigint;

alter table journal drop constraint journal_origin_check;
alter table journal add constraint journal_origin_check check (origin in
    ('credit', 'recharge', 'adjustment', 'refund', 'rerate', 'payment_refund', 'chargeback', 'goodwill', 'migration'))
    not valid;
alter table journal add constraint correction_attributed check (
    origin is null or origin not in ('adjustment', 'refund', 'rerate', 'payment_refund', 'chargeback')
    or (btrim(author) <> '' and btrim(reason) <> '')) not valid;
alter table journal add constraint correction_linked check (
    case when origin in ('payment_refund', 'chargeback') then corrects_id is not null
         when corrects_id is not null then coalesce(origin, '') in ('adjustment', 'goodwill')
         else true end) not valid;

create index journal_by_corrected on journal (corrects_id) where corrects_id is not null;

-- What is corrected is an earlier entry of the same account, or a settlement; what takes a payment back corrects its
-- recharge.
create function check_corrected() returns trigger language plpgsql as $$
declare
    corrected record;
begin
    select kind, account_id, origin into corrected from journal where id = new.corrects_id and id < new.id;
    if not found or corrected.account_id is distinct from new.account_id and corrected.kind <> 'settlement'
       or new.origin in ('payment_refund', 'chargeback') and corrected.origin is distinct from 'recharge' then
        raise exception 'entry % cannot be corrected by entry % (%)', new.corrects_id, new.id, new.origin
            using errcode = 'check_violation', constraint = 'corrects_an_entry';
    end if;
    return null;
end $$;

create trigger corrects_an_entry after insert on journal
    for each row when (new.corrects_id is not null) execute function check_corrected();

-- All that was taken back of a payment is at most the payment. At commit, when the postings are there.
create function check_taken_back() returns trigger language plpgsql as $$
declare
    payment_left bigint;
begin
    perform from balances where account_id = new.account_id for update;
    select sum(p.amount_micros) into payment_left
      from journal j
      join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
     where j.id = new.corrects_id
        or j.corrects_id = new.corrects_id and j.origin in ('payment_refund', 'chargeback');
    if payment_left < 0 then
        raise exception 'more is taken back than entry % credited', new.corrects_id
            using errcode = 'check_violation', constraint = 'taken_back_at_most';
    end if;
    return null;
end $$;

create constraint trigger taken_back_at_most after insert on journal deferrable initially deferred
    for each row when (new.origin in ('payment_refund', 'chargeback')) execute function check_taken_back();

-- One re-rating: the sessions of a plan that were priced in [from_ms, to_ms), priced again with one of its tariff
-- versions. The same again goes on with it.
create table rerates (
    id bigint generated always as identity primary key,
    plan text not null,
    tariff_version integer not null,
    from_ms bigint not null check (from_ms >= 0),
    to_ms bigint not null,
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    started_at timestamptz not null default now(),
    unique (plan, tariff_version, from_ms, to_ms),
    check (from_ms < to_ms),
    foreign key (plan, tariff_version) references tariffs
);

-- What a correction gave back (above 0) or charged in addition (below 0) for one session. Where the same version
-- comes to the same price there is no row.
create table usage_corrections (
    account_id text not null,
    kind text not null,
    session_id text not null,
    journal_id bigint not null,
    amount_micros bigint not null check (amount_micros <> 0 and abs(amount_micros) <= 9007199254740991),
    rerate_id bigint references rerates,                      -- null: a refund
    tariff_version integer,
    price_micros bigint check (price_micros between 0 and 9007199254740991),  -- by that version
    primary key (account_id, kind, session_id, journal_id),
    check ((rerate_id is null) = (tariff_version is null) and (rerate_id is null) = (price_micros is null)),
    check (rerate_id is not null or amount_micros > 0)
);

-- A session is re-rated once with a version, whatever the spans (null: a refund, of which there may be several).
create unique index usage_corrections_by_version on usage_corrections (account_id, kind, session_id, tariff_version);
create index usage_corrections_by_entry on usage_corrections (journal_id);
create index usage_corrections_by_rerate on usage_corrections (rerate_id) where rerate_id is not null;

-- No session is corrected below nothing, or twice at once: whoever corrects holds the account's balance row. The
-- settings make each look-up one of an index, whatever the plan cache believes.
create function check_usage_corrections() returns trigger language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    bad record;
begin
    perform from balances where account_id in (select distinct account_id from fresh) order by account_id for update;
    select f.journal_id into bad
      from (select distinct journal_id, account_id, rerate_id is null as refund from fresh) as f
      left join journal j on j.id = f.journal_id
     where j.booked_at is distinct from now() or j.account_id <> f.account_id
        or j.origin is distinct from case when f.refund then 'refund' else 'rerate' end
     limit 1;
    if found then
        raise exception 'entry % is no correction of this transaction and account (R6)', bad.journal_id
            using errcode = 'check_violation', constraint = 'correction_entry';
    end if;
    select f.account_id, f.kind, f.session_id into bad
      from (select distinct account_id, kind, session_id from fresh) as f
      left join usage u using (account_id, kind, session_id)
     cross join lateral (select sum(c.amount_micros) as back_micros from usage_corrections c
                          where c.account_id = f.account_id and c.kind = f.kind and c.session_id = f.session_id) as c
     where u.amount_micros is null or u.amount_micros < c.back_micros
     limit 1;
    if found then
        raise exception 'session %/%/% is corrected beyond its price, or unknown', bad.account_id, bad.kind, bad.session_id
            using errcode = 'check_violation', constraint = 'correction_bounded';
    end if;
    select f.account_id, f.kind, f.session_id into bad
      from fresh f
      join rerates r on r.id = f.rerate_id
      join usage u using (account_id, kind, session_id)
     where r.tariff_version <> f.tariff_version or r.plan <> u.plan
        or u.price_time_ms < r.from_ms or u.price_time_ms >= r.to_ms
        or exists (select from usage_corrections c
                    where c.account_id = f.account_id and c.kind = f.kind and c.session_id = f.session_id
                      and c.tariff_version > f.tariff_version)
     limit 1;
    if found then
        raise exception 'session %/%/% is not of this re-rating, or a later version has re-rated it', bad.account_id,
            bad.kind, bad.session_id using errcode = 'check_violation', constraint = 'correction_in_order';
    end if;
    return null;
end $$;

create trigger correction_bounded after insert on usage_corrections
    referencing new table as fresh for each statement execute function check_usage_corrections();

-- A refund or re-rating books exactly what its sessions say. At commit, when both are there.
create function check_correction_sum() returns trigger language plpgsql as $$
declare
    booked bigint;
    corrected bigint;
begin
    select sum(amount_micros) into booked from postings where journal_id = new.id and ledger_account = 'customer';
    select sum(amount_micros) into corrected from usage_corrections where journal_id = new.id;
    if booked is distinct from corrected then
        raise exception 'entry % books %, its sessions say %', new.id, booked, corrected
            using errcode = 'check_violation', constraint = 'correction_sum';
    end if;
    return null;
end $$;

create constraint trigger correction_sum after insert on journal deferrable initially deferred
    for each row when (new.origin in ('refund', 'rerate')) execute function check_correction_sum();

create trigger append_only before update or delete or truncate on rerates
    for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on usage_corrections
    for each statement execute function refuse_change();
