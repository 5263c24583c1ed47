-- Settled usage: the subledger of the settlements. The primary key is the final word on duplicates (R7).

create table usage (
    account_id text not null,
    kind text not null check (kind in ('call', 'message', 'item')),
    session_id text not null,
    partition integer not null,
    log_offset bigint not null,
    log_time_ms bigint not null,
    price_time_ms bigint not null,
    amount_micros bigint not null check (amount_micros between 0 and 9007199254740991),
    currency text not null,
    plan text not null,
    tariff_version integer not null,
    tariff_kind text not null,
    direction text not null,
    destination text not null,
    origin text not null,
    quantity bigint not null,
    status text not null,
    matched text not null,
    event_id text not null,
    event_source text not null,
    journal_id bigint,                                        -- null where nothing was charged
    primary key (account_id, kind, session_id),
    check ((amount_micros <> 0) = (journal_id is not null))
) partition by hash (account_id);

do $$
begin
    for part in 0..7 loop
        execute format('create table usage_%s partition of usage for values with (modulus 8, remainder %s)', part, part);
    end loop;
end $$;

-- Rows arrive in log order, so a block range index finds "settled since" at almost no cost.
create index usage_by_log_time on usage using brin (log_time_ms) with (pages_per_range = 32, autosummarize = on);

create table dead_letters (
    topic text not null,
    partition integer not null,
    log_offset bigint not null,
    log_time_ms bigint not null,
    reason text not null,
    detail text not null,
    key bytea,
    value bytea,
    headers bytea not null,                                   -- JSON: [[name, base64 of the value], …]
    stored_at timestamptz not null default now(),
    primary key (topic, partition, log_offset)
);

create index dead_letters_by_reason on dead_letters (reason, stored_at);

create table findings (
    id bigint generated always as identity primary key,
    kind text not null,
    found_at timestamptz not null default now(),
    account_id text,
    partition integer,
    session_kind text,
    session_id text,
    kept_offset bigint,
    refused_offset bigint,
    detail jsonb
);

create index findings_by_kind on findings (kind, found_at);
