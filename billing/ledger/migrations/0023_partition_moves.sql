-- Partitions are added by `billing partitions migrate` (S16): accounts move to the partition that their key has among the
-- new number. What was booked stays as it was; where an account was before stands in account_moves.

-- The number of partitions that a migration under way goes to; it takes the place of `partitions` at its end.
alter table ledger_meta add column moving_to integer;

-- When the account moved to where it is (ms); 0: it is where it was opened. Offsets are compared only within such a stay:
-- usage in another partition, or below usage_position, came before.
alter table accounts add column placed_ms bigint not null default 0;

-- During which stay last_offset was archived; it says nothing about a later one.
alter table archived_accounts add column placed_ms bigint not null default 0;

create table partition_migrations (
    id bigint generated always as identity primary key,
    from_partitions integer not null,
    to_partitions integer not null check (to_partitions > from_partitions),
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    moved_ms bigint not null,
    cuts jsonb not null,                                      -- usage offset by partition at which accounts left it
    moved_at timestamptz not null default now()
);

create table account_moves (
    account_id text not null,
    migration_id bigint not null references partition_migrations,
    from_partition integer not null,
    from_position bigint not null,                            -- its usage there is at or above this
    until_position bigint not null,                           -- and below this
    to_partition integer not null check (to_partition <> from_partition),
    to_position bigint not null,
    primary key (account_id, migration_id)
);

create index account_moves_by_migration on account_moves (migration_id);

-- Inserting moves is what moves accounts, with everything that says where they are or compares offsets of their partition.
create function move_accounts() returns trigger language plpgsql as $$
declare
    moved bigint;
begin
    -- every one of them, in the order of bookings, so that none of these is under way: what it announced is moved below
    update balances b set last_charged_offset = null from fresh f where b.account_id = f.account_id;
    update accounts a
       set home_partition = f.to_partition, usage_position = f.to_position, placed_ms = m.moved_ms
      from fresh f join partition_migrations m on m.id = f.migration_id
     where a.id = f.account_id and a.home_partition = f.from_partition and a.usage_position = f.from_position
       and a.placed_ms < m.moved_ms;
    get diagnostics moved = row_count;
    if moved <> (select count(*) from fresh) then
        raise exception '% of % accounts are not where they are to move from', (select count(*) from fresh) - moved,
            (select count(*) from fresh) using errcode = 'check_violation', constraint = 'moves_from_home';
    end if;
    update outbox o set partition = f.to_partition from fresh f where o.account_id = f.account_id;
    update recharge_due d set usage_position = 0 from fresh f where d.account_id = f.account_id;
    update recharge_intents i set usage_position = 0
      from fresh f where i.account_id = f.account_id and i.state not in ('confirmed', 'cancelled', 'refused');
    return null;
end $$;

create trigger move_accounts after insert on account_moves
    referencing new table as fresh for each statement execute function move_accounts();

do $$
declare
    target text;
begin
    foreach target in array array['partition_migrations', 'account_moves'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
end $$;

-- As before, but for an intent whose account moved: no proof was made in its new partition yet.
create or replace function check_intent_change() returns trigger language plpgsql as $$
declare
    moved constant timestamptz := clock_timestamp();
begin
    if (new.id, new.account_id, new.episode, new.timeline, new.currency, new.amount_micros, new.amount_minor,
        new.customer, new.payment_method, new.created_at)
       is distinct from
       (old.id, old.account_id, old.episode, old.timeline, old.currency, old.amount_micros, old.amount_minor,
        old.customer, old.payment_method, old.created_at)
       or new.usage_position <> old.usage_position and (pg_trigger_depth() < 2 or new.usage_position <> 0) then
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

-- As before; last offsets are those of the account's present stay.
create or replace function recompute_balance() returns trigger language plpgsql security definer as $$
begin
    update balances b
       set credit_micros = coalesce(j.credit_micros, 0),
           used_micros = coalesce(u.used_micros, 0) + coalesce(x.amount_micros, 0),
           last_charged_offset = greatest(u.last_offset, case when x.placed_ms = u.placed_ms then x.last_offset end)
      from (select sum(p.amount_micros) as credit_micros
              from journal e join postings p on p.journal_id = e.id
             where e.account_id = new.account_id and p.account_id = new.account_id) as j,
           (select a.placed_ms, sum(s.amount_micros) as used_micros,
                   max(s.log_offset) filter (where s.amount_micros <> 0 and s.partition = a.home_partition
                                               and s.log_offset >= a.usage_position) as last_offset
              from accounts a left join usage s on s.account_id = a.id
             where a.id = new.account_id group by a.id) as u
      left join archived_accounts x on x.account_id = new.account_id
     where b.account_id = new.account_id;
    return null;
end $$;

create or replace function archive_usage() returns trigger language plpgsql as $$
declare
    archive usage_archives;
    bad record;
begin
    if not exists (select from gone) then
        return null;
    end if;
    select * into archive from usage_archives where id = current_archive();
    select g.account_id, g.session_id into bad
      from gone g left join positions p on p.topic = 'usage.events' and p.partition = g.partition
     where g.log_time_ms >= archive.before_ms or g.log_time_ms >= coalesce(p.log_time_ms, 0) - 91 * 86400000::bigint
     limit 1;
    if found then
        raise exception 'session %/% is too young for archive %', bad.account_id, bad.session_id, archive.id
            using errcode = 'check_violation', constraint = 'archive_age';
    end if;
    if (select count(*) from gone) <> archive.sessions
       or (select jsonb_object_agg(currency, total) from
              (select currency, sum(amount_micros) as total from gone group by currency) as sums)
          is distinct from archive.amounts
       or exists (select from archived_archives where archive_id = archive.id) then
        raise exception 'archive % does not name what is deleted', archive.id
            using errcode = 'check_violation', constraint = 'archive_sum';
    end if;
    insert into archived_archives (archive_id) values (archive.id);
    insert into archived_accounts as x (account_id, sessions, amount_micros, last_offset, placed_ms)
    select g.account_id, count(*), sum(g.amount_micros),
           max(g.log_offset) filter (where g.amount_micros <> 0 and g.partition = a.home_partition
                                       and g.log_offset >= a.usage_position), coalesce(max(a.placed_ms), 0)
      from gone g left join accounts a on a.id = g.account_id group by g.account_id order by g.account_id
        on conflict (account_id) do update
       set sessions = x.sessions + excluded.sessions, amount_micros = x.amount_micros + excluded.amount_micros,
           last_offset = case when x.placed_ms = excluded.placed_ms then greatest(x.last_offset, excluded.last_offset)
                              else excluded.last_offset end,
           placed_ms = excluded.placed_ms;
    insert into archived_settlements as s
           (journal_id, currency, partition, sessions, amount_micros, first_offset, last_offset)
    select journal_id, currency, partition, count(*), sum(amount_micros), min(log_offset), max(log_offset)
      from gone where journal_id is not null group by journal_id, currency, partition order by journal_id, currency
        on conflict (journal_id, currency) do update
       set sessions = s.sessions + excluded.sessions, amount_micros = s.amount_micros + excluded.amount_micros,
           first_offset = least(s.first_offset, excluded.first_offset),
           last_offset = greatest(s.last_offset, excluded.last_offset);
    return null;
end $$;
