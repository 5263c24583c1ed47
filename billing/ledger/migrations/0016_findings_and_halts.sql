-- What an operator needs when the books differ or a partition halted: findings that are resolved, views that are
-- corrected, halts with their time, timelines that this ledger had.

-- An entry that moves no money: the balance store works the account out anew from the ledger.
alter table journal drop constraint journal_kind_check;
alter table journal add constraint journal_kind_check
    check (kind in ('opened', 'changed', 'settlement', 'entry', 'acknowledged', 'view_corrected')) not valid;

-- A finding stays as it was recorded; what became of it is a row here. `accepted`: the operator let it stand.
create table finding_resolutions (
    finding_id bigint primary key references findings,
    resolved_at timestamptz not null default now(),
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    action text not null check (action in ('seen', 'agreed', 'accepted', 'booked')),
    detail jsonb
);

create trigger append_only before update or delete or truncate on finding_resolutions
    for each statement execute function refuse_change();

create index findings_by_account on findings (account_id, kind) where account_id is not null;

create view open_findings as
select f.* from findings f where not exists (select from finding_resolutions r where r.finding_id = f.id);

-- When a partition was halted.
alter table positions add column halted_at timestamptz;

create function stamp_halt() returns trigger language plpgsql as $$
begin
    new.halted_at := case when new.halted is not null then clock_timestamp() end;
    return new;
end $$;

create trigger stamp_halt before update on positions
    for each row when (new.halted is distinct from old.halted) execute function stamp_halt();

-- Every timeline that this ledger had, so that a charge of an earlier one is known to be ours (S28).
create table ledger_timelines (
    timeline text primary key,
    began_at timestamptz not null default clock_timestamp()
);

insert into ledger_timelines (timeline, began_at) select timeline, created_at from ledger_meta;

create function remember_timeline() returns trigger language plpgsql as $$
begin
    insert into ledger_timelines (timeline) values (new.timeline) on conflict do nothing;
    return null;
end $$;

create trigger remember_timeline after insert or update of timeline on ledger_meta
    for each row execute function remember_timeline();

create trigger append_only before update or delete or truncate on ledger_timelines
    for each statement execute function refuse_change();

-- Why this ledger is believed to be an earlier state of itself, until somebody has said what happened (S28). Nothing is
-- published and nobody is charged meanwhile.
alter table recharge_switch add column suspected text check (btrim(suspected) <> '');
