-- Effective-dated tariffs and plan assignments. Version 1 applies from the beginning of time (effective_ms 0).

create table tariffs (
    plan text not null check (plan ~ '^[A-Za-z0-9._:-]{1,64}$'),
    version integer not null check (version >= 1),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    effective_ms bigint not null check ((version = 1) = (effective_ms = 0) and effective_ms >= 0),
    author text not null,
    loaded_at timestamptz not null default now(),
    primary key (plan, version)
);

create table tariff_rates (
    plan text not null,
    version integer not null,
    kind text not null check (kind in ('call', 'sms', 'mms', 'item')),
    direction text not null check (direction in ('inbound', 'outbound', '')),
    match text not null,
    rate_micros bigint not null check (rate_micros between 0 and 9007199254740991),
    first_increment_seconds integer not null,
    next_increment_seconds integer not null,
    connect_fee_micros bigint not null check (connect_fee_micros between 0 and 9007199254740991),
    minimum_charge_micros bigint not null check (minimum_charge_micros between 0 and 9007199254740991),
    description text not null default '',
    primary key (plan, version, kind, direction, match),
    foreign key (plan, version) references tariffs
);

create table plan_assignments (
    account_id text not null,
    version integer not null check (version >= 1),
    plan text not null,
    effective_ms bigint not null check ((version = 1) = (effective_ms = 0) and effective_ms >= 0),
    primary key (account_id, version)
);

-- What the relay has yet to publish on billing.tariffs; a row goes when Kafka has acknowledged it. An assignment
-- waits until the account's entries up to `ledger_seq` have left the outbox.
create table catalogue_outbox (
    id bigint generated always as identity primary key,
    key text not null,
    type text not null,
    data jsonb not null,
    account_id text,
    ledger_seq bigint,
    created_at timestamptz not null default now()
);

-- Later versions take effect at least the lead after every as_of that the relay has announced or will announce
-- before it sees them. Runs at commit (deferred). The relay takes the same lock exclusively when it takes as_of,
-- so a version either commits before (and is published before the heartbeat) or is checked against it here.
create function catalogue_lead() returns trigger language plpgsql as $$
declare
    floor_ms bigint;
begin
    perform pg_advisory_xact_lock_shared(1651076204, 2);
    select greatest(as_of_ms, floor(extract(epoch from clock_timestamp()) * 1000)::bigint) into floor_ms
      from catalogue_clock;
    if new.effective_ms < floor_ms + 600000 then
        raise exception 'effective % is less than 600 s after %', new.effective_ms, floor_ms
            using errcode = 'check_violation', constraint = 'catalogue_lead';
    end if;
    return null;
end $$;

create constraint trigger catalogue_lead after insert on tariffs
    deferrable initially deferred for each row when (new.version > 1) execute function catalogue_lead();

create constraint trigger catalogue_lead after insert on plan_assignments
    deferrable initially deferred for each row when (new.version > 1) execute function catalogue_lead();
