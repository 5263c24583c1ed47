-- Who this ledger is, and how far it has read. Times named *_ms are milliseconds since 1970 UTC.

create table ledger_meta (
    only_row boolean primary key default true check (only_row),
    timeline text not null,                                   -- new at each restore or unsafe promotion
    partitions integer not null check (partitions between 1 and 1024),
    created_at timestamptz not null default now()
);

-- The catalogue's clock: the last as_of that was announced. Versions must take effect later than the lead after
-- it, even when the machine's clock was set back since (see catalogue_lead()).
create table catalogue_clock (
    only_row boolean primary key default true check (only_row),
    as_of_ms bigint not null default 0
);

insert into catalogue_clock default values;

create table incarnations (
    number bigint generated always as identity primary key,   -- of the balance store
    timeline text not null,
    reason text not null,
    minted_at timestamptz not null default now()
);

-- Locked by every settlement (for update) and by every opening of an account (for share), so that usage and
-- opening are ordered (S46). Topic is the logical name, without the deployment's namespace.
create table positions (
    topic text not null,
    partition integer not null check (partition >= 0),
    next_offset bigint not null default 0 check (next_offset >= 0),
    fingerprint text not null default '',
    log_time_ms bigint not null default 0,
    epoch bigint not null default 0,
    nonce text not null default '',
    halted text,                                              -- the reason, or null
    primary key (topic, partition)
) with (fillfactor = 20);
