-- Recharge: who is due, what was charged, why not, and the switches. Nothing here is ever deleted but due rows.

-- Accounts that a signal or the sweep asks to evaluate. `signals` counts the requests: a row goes only when no request
-- has come since it was taken up.
create table recharge_due (
    account_id text primary key references accounts,
    signalled_at timestamptz not null default clock_timestamp(),
    signals bigint not null default 1,
    usage_position bigint not null,                           -- of the newest signal: no proof may be behind it
    evaluate_at timestamptz not null default clock_timestamp(),
    last_outcome text,                                        -- the last refusal, null before one
    times integer not null default 0 check (times >= 0)       -- how often in a row it was that one
) with (fillfactor = 50);

create index recharge_due_by_time on recharge_due (evaluate_at);

-- The number of the account's present low-balance episode; it advances when an intent closes, never back (R3).
create table recharge_episodes (
    account_id text primary key references accounts,
    episode bigint not null default 1 check (episode >= 1)
) with (fillfactor = 50);

create function episode_is_monotone() returns trigger language plpgsql as $$
begin
    if new.account_id <> old.account_id or new.episode < old.episode then
        raise exception 'the episode of % never goes back (R3)', old.account_id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;

create trigger episode_is_monotone before update on recharge_episodes
    for each row execute function episode_is_monotone();

-- Which state may follow which, as in billing/recharge/protocol.py (a test compares them).
create table recharge_transitions (
    before text not null,
    after text not null,
    primary key (before, after)
);

insert into recharge_transitions values
    ('proving', 'created'), ('proving', 'refused'), ('proving', 'cancelled'), ('proving', 'succeeded'),
    ('created', 'confirming'), ('created', 'withdrawn'), ('created', 'declined'), ('created', 'cancelled'),
    ('created', 'succeeded'),
    ('confirming', 'created'), ('confirming', 'declined'), ('confirming', 'cancelled'), ('confirming', 'succeeded'),
    ('declined', 'cancelled'), ('declined', 'succeeded'),
    ('withdrawn', 'declined'), ('withdrawn', 'cancelled'), ('withdrawn', 'succeeded'),
    ('succeeded', 'credited'), ('credited', 'confirmed'),
    ('cancelled', 'succeeded'), ('refused', 'succeeded');     -- S50: a success counts from whatever state

-- One row per charge or attempt at one. Parameters are frozen: a repeated create must send the very same ones.
create table recharge_intents (
    id bigint generated always as identity primary key,
    account_id text not null references accounts,
    episode bigint not null check (episode >= 1),
    timeline text not null,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    amount_micros bigint not null check (amount_micros between 1 and 9007199254740991),
    amount_minor bigint not null check (amount_minor >= 1),
    customer text not null,                                   -- the gateway's tokens, never card data (R12)
    payment_method text not null,
    usage_position bigint not null,                           -- of the signal and the store's view: no proof behind it
    created_at timestamptz not null default clock_timestamp(),
    state text not null default 'proving' check (state in ('proving', 'created', 'confirming', 'succeeded', 'credited',
        'declined', 'withdrawn', 'confirmed', 'cancelled', 'refused')),
    payment_id text unique,
    create_attempt integer not null default 1 check (create_attempt >= 1),
    confirm_attempt integer not null default 1 check (confirm_attempt >= 1),
    received_minor bigint check (received_minor >= 1),
    credit_seq bigint check (credit_seq >= 1),
    reason text,
    late boolean not null default false,                      -- succeeded after it had been closed
    counted_at timestamptz not null default clock_timestamp(),  -- when its money counts: creation, later its move
    declined_at timestamptz,
    succeeded_at timestamptz,
    closed_at timestamptz,
    updated_at timestamptz not null default clock_timestamp(),
    next_at timestamptz not null default clock_timestamp(),   -- when a worker should look again
    lease_owner text,
    lease_epoch bigint not null default 0,                    -- raised by each lease and each outside change: fences
    lease_until timestamptz,
    unique (account_id, episode),
    unique (account_id, credit_seq),
    check (amount_micros / amount_minor in (1000, 10000, 1000000) and amount_micros % amount_minor = 0),
    check (payment_id is not null or state in ('proving', 'refused', 'cancelled')),
    check ((state in ('succeeded', 'credited', 'confirmed')) = (received_minor is not null)),
    check ((state in ('credited', 'confirmed')) = (credit_seq is not null))
) with (fillfactor = 50);

-- One open intent per account (R3). A late success is open again until its credit is read back, beside another
-- intent perhaps: it can no longer charge, but the next one waits for it (check 4).
create unique index one_open_intent on recharge_intents (account_id)
    where state not in ('confirmed', 'cancelled', 'refused') and not late;

create index recharge_intents_to_drive on recharge_intents (next_at)
    where state not in ('confirmed', 'cancelled', 'refused');
-- What may still move money counts towards the breaker however old it is (R4).
create index recharge_intents_pending on recharge_intents (currency, amount_micros)
    where state in ('proving', 'created', 'confirming', 'declined', 'withdrawn');
create index recharge_intents_counted on recharge_intents (currency, counted_at);

create function check_new_intent() returns trigger language plpgsql as $$
begin
    if new.state <> 'proving' or new.episode is distinct from
            (select episode from recharge_episodes where account_id = new.account_id) then
        raise exception 'an intent begins as proving, in the present episode of %', new.account_id
            using errcode = 'check_violation', constraint = 'present_episode';
    end if;
    return new;
end $$;

create trigger new_intent before insert on recharge_intents for each row execute function check_new_intent();

-- Frozen parameters, states in their order, facts that never change once known; and the times that follow from states.
create function check_intent_change() returns trigger language plpgsql as $$
declare
    moved constant timestamptz := clock_timestamp();
begin
    if (new.id, new.account_id, new.episode, new.timeline, new.currency, new.amount_micros, new.amount_minor,
        new.customer, new.payment_method, new.usage_position, new.created_at)
       is distinct from
       (old.id, old.account_id, old.episode, old.timeline, old.currency, old.amount_micros, old.amount_minor,
        old.customer, old.payment_method, old.usage_position, old.created_at) then
        raise exception 'the parameters of intent % are frozen', old.id using errcode = 'restrict_violation';
    end if;
    if (old.payment_id is not null and new.payment_id is distinct from old.payment_id)
       or (old.received_minor is not null and new.received_minor is distinct from old.received_minor)
       or (old.credit_seq is not null and new.credit_seq is distinct from old.credit_seq)
       or new.create_attempt < old.create_attempt or new.confirm_attempt < old.confirm_attempt
       or new.lease_epoch < old.lease_epoch then
        raise exception 'intent % keeps its payment, amount, credit and attempts', old.id
            using errcode = 'restrict_violation';
    end if;
    new.updated_at := moved;
    if new.state = old.state then
        return new;
    end if;
    if not exists (select from recharge_transitions where before = old.state and after = new.state) then
        raise exception 'intent %: % never follows %', old.id, new.state, old.state
            using errcode = 'restrict_violation';
    end if;
    if new.state in ('confirming', 'succeeded') then
        new.counted_at := moved;
    end if;
    if new.state = 'declined' then
        new.declined_at := moved;
    end if;
    if new.state = 'succeeded' then
        new.succeeded_at := moved;
        new.late := old.state in ('cancelled', 'refused');
    end if;
    if new.state in ('confirmed', 'cancelled', 'refused') then
        new.closed_at := moved;
    end if;
    return new;
end $$;

create trigger intent_change before update on recharge_intents for each row execute function check_intent_change();

create function advance_episode() returns trigger language plpgsql as $$
begin
    update recharge_episodes set episode = new.episode + 1
     where account_id = new.account_id and episode <= new.episode;
    return null;
end $$;

create trigger advance_episode after update of state on recharge_intents
    for each row when (new.state in ('confirmed', 'cancelled', 'refused') and new.state <> old.state)
    execute function advance_episode();

-- Why charged, and why not, with what was seen. The same refusal of an account again within the hour raises `times`
-- and replaces what was seen, so that a signal a minute does not fill the table.
create table recharge_evaluations (
    id bigint generated always as identity primary key,
    account_id text not null references accounts,
    intent_id bigint references recharge_intents,             -- null: refused before there was one
    stage text not null check (stage in ('open', 'proof', 'final', 'suspend', 'resume')),
    refusal text,                                             -- null: passed
    checks jsonb not null,                                    -- [{check, refusal, seen}, …] in their order
    timeline text not null,
    times integer not null default 1 check (times >= 1),
    first_at timestamptz not null default clock_timestamp(),
    last_at timestamptz not null default clock_timestamp(),
    check (times = 1 or refusal is not null)
);

create index recharge_evaluations_by_account on recharge_evaluations (account_id, stage, id);
create index recharge_evaluations_by_intent on recharge_evaluations (intent_id) where intent_id is not null;

create function check_evaluation_change() returns trigger language plpgsql as $$
begin
    if old.refusal is null or new.times <> old.times + 1
       or (new.id, new.account_id, new.intent_id, new.stage, new.refusal, new.timeline, new.first_at)
          is distinct from
          (old.id, old.account_id, old.intent_id, old.stage, old.refusal, old.timeline, old.first_at) then
        raise exception 'evaluation % stands', old.id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;

create trigger evaluation_change before update on recharge_evaluations
    for each row execute function check_evaluation_change();

-- Money per minute and currency. Open: nobody is charged until a person resets it (R4).
create table recharge_breaker (
    currency text primary key check (currency ~ '^[A-Z]{3}$'),
    open boolean not null default false,
    tripped_at timestamptz,
    tripped_by text,                                          -- the account whose charge would have exceeded it
    reset_at timestamptz,                                     -- money that moved before it was looked at by a person
    reset_by text check (btrim(reset_by) <> ''),
    reset_reason text check (btrim(reset_reason) <> ''),
    check (not open or tripped_at is not null),
    check (open or tripped_at is null or (reset_at is not null and reset_at >= tripped_at)),
    check ((reset_at is null) = (reset_by is null) and (reset_by is null) = (reset_reason is null))
);

-- One row: the pause switch, and the timeline whose charges are known here. A ledger of another timeline (restored)
-- may have forgotten charges: everything is frozen until they are reconciled with the gateway's (S28).
create table recharge_switch (
    only_row boolean primary key default true check (only_row),
    paused boolean not null default false,
    author text check (btrim(author) <> ''),
    reason text check (btrim(reason) <> ''),
    changed_at timestamptz,
    reconciled_timeline text,                                 -- null only until `billing migrate` has minted the first
    check ((changed_at is null) = (author is null) and (author is null) = (reason is null)),
    check (not paused or author is not null)
);

insert into recharge_switch default values;

-- Accounts that are neither charged nor suspended until someone has looked: the two books differ.
create table recharge_freezes (
    account_id text primary key references accounts,
    frozen boolean not null,
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    changed_at timestamptz not null default clock_timestamp()
);

-- What people (and the breaker) did to the switches.
create table recharge_actions (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    action text not null check (action in ('pause', 'resume', 'trip', 'reset', 'freeze', 'unfreeze', 'forgive')),
    subject text not null,                                    -- a currency, an account, or 'all'
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> '')
);

create index recharge_actions_by_subject on recharge_actions (subject, id);

-- A new payment method is a new start: declines of the old one count no more.
create table recharge_forgiven (
    account_id text primary key references accounts,
    forgiven_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

create function forgive_declines() returns trigger language plpgsql as $$
begin
    insert into recharge_forgiven (account_id) values (new.id)
        on conflict (account_id) do update set forgiven_at = clock_timestamp();
    return null;
end $$;

create trigger forgive_declines after update of payment_method on accounts
    for each row when (new.payment_method is not null and new.payment_method is distinct from old.payment_method)
    execute function forgive_declines();

create index accounts_suspended on accounts (id) where status = 'suspended';
create index accounts_recharged on accounts (id) where recharge_below_micros is not null;

do $$
declare
    target text;
begin
    foreach target in array array['recharge_actions', 'recharge_transitions'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
    foreach target in array array['recharge_intents', 'recharge_episodes', 'recharge_evaluations', 'recharge_breaker',
                                  'recharge_switch', 'recharge_freezes', 'recharge_forgiven'] loop
        execute format('create trigger no_delete before delete or truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
end $$;
