-- Balances are moved by postings, and by nothing else (R6): inserting the lines of an entry moves the balances of their
-- accounts in the same statement. So a balance is the sum of its postings whoever writes.

-- Of a settlement's customer line: the offset of the last record that charged. Such a line moves `used`, others `credit`.
alter table postings add column charged_offset bigint;
alter table postings add constraint charged_offset_of_customer
    check (charged_offset is null or account_id is not null and amount_micros < 0) not valid;

-- The account's, so that moving a balance need not look at the account too. Null in rows from before this column, until
-- they move.
alter table balances add column currency text;

-- Look-ups by account go through journal_by_account (entries) and usage's key (sessions): an index of every settlement's
-- lines by account cost a fifth of a settlement.
drop index postings_by_account;

-- One index look-up per entry and account, in account order, whatever the plan cache believes about the size of tables.
create or replace function check_postings() returns trigger language plpgsql security definer
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
    bad record;
    unmoved bigint;
begin
    select s.journal_id, s.currency, s.total, j.booked_at is distinct from now() as foreign_entry into bad
      from (select journal_id, currency, sum(amount_micros) as total from fresh group by journal_id, currency) as s
      left join journal j on j.id = s.journal_id
     where s.total <> 0 or j.booked_at is distinct from now()
     order by s.total = 0 limit 1;
    if bad.total <> 0 then
        raise exception 'entry % is off by % micro-units of % (R6)', bad.journal_id, bad.total, bad.currency
            using errcode = 'check_violation', constraint = 'zero_sum';
    elsif bad.foreign_entry then
        raise exception 'entry % is not of this transaction; entries are never added to (R6)', bad.journal_id
            using errcode = 'check_violation', constraint = 'own_entry';
    end if;
    with line as materialized (
        select account_id, currency, max(charged_offset) as charged_offset,
               coalesce(-sum(amount_micros) filter (where charged_offset is not null), 0)::bigint as used_micros,
               coalesce(sum(amount_micros) filter (where charged_offset is null), 0)::bigint as credit_micros
          from fresh where account_id is not null group by account_id, currency order by account_id
    ), moved as (
        update balances b
           set used_micros = b.used_micros + line.used_micros, credit_micros = b.credit_micros + line.credit_micros,
               last_charged_offset = greatest(b.last_charged_offset, line.charged_offset), currency = line.currency
          from line
         where b.account_id = line.account_id
           and coalesce(b.currency, (select a.currency from accounts a where a.id = b.account_id)) = line.currency
        returning 1
    )
    select (select count(*) from line) - (select count(*) from moved) into unmoved;
    if unmoved <> 0 then
        select f.account_id, f.currency, a.currency as of_account into bad
          from fresh f
          left join balances b on b.account_id = f.account_id
          left join accounts a on a.id = b.account_id
         where f.account_id is not null and a.currency is distinct from f.currency limit 1;
        raise exception 'account % is charged in %, but the ledger has %', bad.account_id, bad.currency,
            coalesce(bad.of_account, 'no such account') using errcode = 'check_violation', constraint = 'known_account';
    end if;
    return null;
end $$;

create function balances_move_by_postings() returns trigger language plpgsql as $$
begin
    if pg_trigger_depth() < 2 then
        raise exception 'balances move by postings only (R6): % refused', lower(tg_op)
            using errcode = 'restrict_violation';
    end if;
    return null;
end $$;

create trigger moved_by_postings before update of account_id, credit_micros, used_micros, last_charged_offset, currency
    on balances for each statement execute function balances_move_by_postings();
create trigger append_only before delete or truncate on balances for each statement execute function refuse_change();

create function check_new_balances() returns trigger language plpgsql as $$
declare
    bad record;
begin
    select f.account_id into bad
      from fresh f left join accounts a on a.id = f.account_id
     where f.credit_micros <> 0 or f.used_micros <> 0 or f.excluded_micros <> 0 or f.last_charged_offset is not null
        or f.currency is distinct from a.currency limit 1;
    if found then
        raise exception 'account %: a balance begins empty, in its account''s currency (R6)', bad.account_id
            using errcode = 'check_violation', constraint = 'begins_empty';
    end if;
    return null;
end $$;

create trigger begins_empty after insert on balances
    referencing new table as fresh for each statement execute function check_new_balances();
