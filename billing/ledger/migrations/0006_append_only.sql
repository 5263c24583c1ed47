-- Nothing that was booked is updated or deleted (R6); corrections are new entries.

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only (R6): % refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end $$;

do $$
declare
    target text;
begin
    foreach target in array array['journal', 'postings', 'dead_letters', 'tariffs', 'tariff_rates',
                                  'plan_assignments', 'incarnations', 'findings'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
    -- A statement on a partition fires that partition's triggers only.
    for target in select inhrelid::regclass::text from pg_inherits where inhparent = 'usage'::regclass
                  union all select 'usage' loop
        execute format('create trigger append_only before update or delete or truncate on %I
                        for each statement execute function refuse_change()', target);
    end loop;
end $$;

-- booked_at is when it was booked: nobody dates an entry back.
create function check_booked_at() returns trigger language plpgsql as $$
begin
    if exists (select from fresh where booked_at <> now()) then
        raise exception 'booked_at is the time of booking' using errcode = 'check_violation', constraint = 'booked_at';
    end if;
    return null;
end $$;

create trigger booked_at after insert on journal
    referencing new table as fresh for each statement execute function check_booked_at();
