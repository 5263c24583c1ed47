-- The one exception to "nothing is deleted": the owner moves sessions that no repeat can reach any more into files. What
-- left is named in usage_archives and stays in sums here, so that the books still add up and can be proved.

create table usage_archives (
    id bigint generated always as identity primary key,
    archived_at timestamptz not null default now(),
    author text not null check (btrim(author) <> ''),
    reason text not null check (btrim(reason) <> ''),
    before_ms bigint not null,                                -- only sessions of an earlier log time
    file text not null unique,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),   -- of the file
    sessions bigint not null check (sessions > 0),
    amounts jsonb not null                                    -- micro-units by currency
);

create table archived_accounts (
    account_id text primary key,
    sessions bigint not null,
    amount_micros bigint not null,
    last_offset bigint                                        -- of the last archived record that charged
);

create table archived_settlements (
    journal_id bigint not null,
    currency text not null,
    partition integer not null,
    sessions bigint not null,
    amount_micros bigint not null,
    first_offset bigint not null,
    last_offset bigint not null,
    primary key (journal_id, currency)
);

-- The archive of this transaction, if there is one.
create function current_archive() returns bigint language sql stable as $$
    select id from usage_archives
     where id = nullif(current_setting('billing.archive', true), '')::bigint and archived_at = now()
$$;

create function only_by_archive() returns trigger language plpgsql as $$
begin
    if pg_trigger_depth() < 2 or current_archive() is null then
        raise exception '% changes with an archive only (R6): % refused', tg_table_name, lower(tg_op)
            using errcode = 'restrict_violation';
    end if;
    return null;
end $$;

create function refuse_delete_without_archive() returns trigger language plpgsql as $$
begin
    if current_archive() is null then
        raise exception '% is append-only (R6): % refused', tg_table_name, lower(tg_op)
            using errcode = 'restrict_violation';
    end if;
    return null;
end $$;

-- What leaves is exactly what the archive says, and no repeat can come any more: an event older than 90 days is a dead
-- letter; a day more is for times that lie in the future of their record.
create function archive_usage() returns trigger language plpgsql as $$
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
    insert into archived_accounts as a (account_id, sessions, amount_micros, last_offset)
    select account_id, count(*), sum(amount_micros), max(log_offset) filter (where amount_micros <> 0)
      from gone group by account_id order by account_id
        on conflict (account_id) do update
       set sessions = a.sessions + excluded.sessions, amount_micros = a.amount_micros + excluded.amount_micros,
           last_offset = greatest(a.last_offset, excluded.last_offset);
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

-- An archive deletes once.
create table archived_archives (archive_id bigint primary key references usage_archives);

create trigger append_only before update or delete or truncate on usage_archives
    for each statement execute function refuse_change();

do $$
declare
    target text;
begin
    foreach target in array array['archived_accounts', 'archived_settlements', 'archived_archives'] loop
        execute format('create trigger only_by_archive before insert or update or delete on %I
                        for each statement execute function only_by_archive()', target);
        execute format('create trigger append_only before truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
    -- A statement on a partition fires that partition's triggers only: archives delete there, by name.
    for target in select inhrelid::regclass::text from pg_inherits where inhparent = 'usage'::regclass loop
        execute format('drop trigger append_only on %s', target);
        execute format('create trigger append_only before update or truncate on %s
                        for each statement execute function refuse_change()', target);
        execute format('create trigger archived before delete on %s
                        for each statement execute function refuse_delete_without_archive()', target);
        execute format('create trigger archive_sums after delete on %s referencing old table as gone
                        for each statement execute function archive_usage()', target);
    end loop;
end $$;

-- As before, archived sessions included.
create or replace function recompute_balance() returns trigger language plpgsql security definer as $$
begin
    update balances b
       set credit_micros = coalesce(j.credit_micros, 0),
           used_micros = coalesce(u.used_micros, 0) + coalesce(a.amount_micros, 0),
           last_charged_offset = greatest(u.last_offset, a.last_offset)
      from (select sum(p.amount_micros) as credit_micros
              from journal e join postings p on p.journal_id = e.id
             where e.account_id = new.account_id and p.account_id = new.account_id) as j,
           (select sum(amount_micros) as used_micros,
                   max(log_offset) filter (where amount_micros <> 0) as last_offset
              from usage where account_id = new.account_id) as u
      left join archived_accounts a on a.account_id = new.account_id
     where b.account_id = new.account_id;
    return null;
end $$;
