-- What the relay has yet to publish on ledger.entries. The writer holds the account's balance row from taking
-- ledger_seq until its commit, so the visible rows of an account are always a run without a hole, in id order.

create table outbox (
    id bigint generated always as identity primary key,
    partition integer not null,
    account_id text not null,
    ledger_seq bigint not null,
    type text not null,
    data jsonb not null,
    created_at timestamptz not null default now(),
    unique (account_id, ledger_seq)
);

create index outbox_by_partition on outbox (partition, id);

create function wake_relay() returns trigger language plpgsql as $$
begin
    notify billing_outbox;
    return null;
end $$;

create trigger wake_relay after insert on outbox for each statement execute function wake_relay();
create trigger wake_relay after insert on catalogue_outbox for each statement execute function wake_relay();
