-- name: version
-- Version $2 of plan $1 (null: the newest), with the ledger's timeline.
select t.version, t.currency, t.effective_ms, m.timeline
  from tariffs t cross join ledger_meta m
 where t.plan = $1 and ($2::integer is null or t.version = $2)
 order by t.version desc limit 1;

-- name: later
-- A re-rating of plan $1 with a version above $2 whose span overlaps with $3 to $4 (ms); no row when there is none.
select id, tariff_version, from_ms, to_ms from rerates
 where plan = $1 and tariff_version > $2 and from_ms < $4 and to_ms > $3
 order by id desc limit 1;

-- name: find
-- The re-rating of plan $1 with version $2 from $3 to $4 (ms).
select id, author, reason, started_at from rerates
 where plan = $1 and tariff_version = $2 and from_ms = $3 and to_ms = $4;

-- name: start
-- The re-rating of plan $1 with version $2 from $3 to $4 (ms), unless it is there: $5 author, $6 reason.
insert into rerates (plan, tariff_version, from_ms, to_ms, author, reason) values ($1, $2, $3, $4, $5, $6)
on conflict (plan, tariff_version, from_ms, to_ms) do nothing;

-- name: lock
-- One re-rating of a plan ($1) at a time, for as long as this session lives.
select pg_try_advisory_lock(hashtextextended('billing rerate ' || $1::text, 0));

-- name: all_sessions
-- Every priced session of plan $1 whose price time is in [$2, $3) ms and that version $4 has not re-rated: what it costs
-- now and how much of it was refunded, account by account.
select u.account_id, u.tariff_kind, u.direction, u.destination, u.quantity,
       u.amount_micros - coalesce(c.back_micros, 0)::bigint as net_micros,
       coalesce(c.refunded_micros, 0)::bigint as refunded_micros
  from usage u
  left join (select account_id, kind, session_id, sum(amount_micros) as back_micros, max(tariff_version) as newest,
                    sum(amount_micros) filter (where rerate_id is null) as refunded_micros
               from usage_corrections group by account_id, kind, session_id) c using (account_id, kind, session_id)
 where u.plan = $1 and u.price_time_ms >= $2 and u.price_time_ms < $3 and u.matched <> ''
   and coalesce(c.newest, 0) < $4
 order by u.account_id;

-- name: prepare_todo
-- The accounts to go through, for this session only.
create temporary table if not exists rerate_todo (
    ord bigint generated always as identity, account_id text not null, sessions bigint not null
);
truncate rerate_todo restart identity;

-- name: collect
-- Accounts with priced sessions of plan $1 in [$2, $3) ms, in order.
insert into rerate_todo (account_id, sessions)
select account_id, count(*) from usage
 where plan = $1 and price_time_ms >= $2 and price_time_ms < $3 and matched <> ''
 group by account_id order by account_id;

-- name: todo_size
-- How much there is to go through.
select count(*) as accounts, coalesce(sum(sessions), 0)::bigint as sessions from rerate_todo;

-- name: todo_page
-- The next accounts after $1: at most $2, and of at most $3 sessions together, or else one account.
select ord, account_id, sessions
  from (select ord, account_id, sessions, sum(sessions) over (order by ord) as total,
               row_number() over (order by ord) as place
          from (select * from rerate_todo where ord > $1 order by ord limit $2) as next) as sized
 where total <= $3 or place = 1
 order by ord;

-- name: lock_balances
-- Lock the balances of the accounts $1, in their order.
select account_id from balances where account_id = any($1::text[]) order by account_id for update;

-- name: sessions
-- The priced sessions of the accounts $1, of plan $2 with a price time in [$3, $4) ms: what each costs now, how much of
-- that was refunded, and whether version $5 or a later one has re-rated it.
select u.account_id, u.kind, u.session_id, u.tariff_kind, u.direction, u.destination, u.quantity,
       u.amount_micros - coalesce(c.back_micros, 0)::bigint as net_micros,
       coalesce(c.refunded_micros, 0)::bigint as refunded_micros, coalesce(c.newest, 0) >= $5 as done
  from usage u
 cross join lateral (
     select sum(amount_micros) as back_micros, max(tariff_version) as newest,
            sum(amount_micros) filter (where rerate_id is null) as refunded_micros
       from usage_corrections x
      where x.account_id = u.account_id and x.kind = u.kind and x.session_id = u.session_id) c
 where u.account_id = any($1::text[]) and u.plan = $2 and u.price_time_ms >= $3 and u.price_time_ms < $4
   and u.matched <> '';

-- name: next_sessions
-- The same of one account ($1): the next $8 after ($6 kind, $7 id), in that order.
select u.account_id, u.kind, u.session_id, u.tariff_kind, u.direction, u.destination, u.quantity,
       u.amount_micros - coalesce(c.back_micros, 0)::bigint as net_micros,
       coalesce(c.refunded_micros, 0)::bigint as refunded_micros, coalesce(c.newest, 0) >= $5 as done
  from usage u
 cross join lateral (
     select sum(amount_micros) as back_micros, max(tariff_version) as newest,
            sum(amount_micros) filter (where rerate_id is null) as refunded_micros
       from usage_corrections x
      where x.account_id = u.account_id and x.kind = u.kind and x.session_id = u.session_id) c
 where u.account_id = $1 and u.plan = $2 and u.price_time_ms >= $3 and u.price_time_ms < $4
   and u.matched <> '' and (u.kind, u.session_id) > ($6::text, $7::text)
 order by u.kind, u.session_id limit $8;

-- name: prepare_batch
-- Where a batch's corrections are copied to; one per connection, emptied at the end of each transaction. It is joined with
-- the batch's entries, which have no index.
create temporary table if not exists rerated (
    account_id text, kind text, session_id text, amount_micros bigint, price_micros bigint
) on commit delete rows;
set local enable_hashjoin = on;

-- name: book
-- Book the corrections in `rerated`: per account one entry for what is given back and one for what is charged in
-- addition, with postings against revenue, the link to each session, balances and outbox. $1 author, $2 reason, $3 the
-- re-rating, $4 its version. Returns how many entries.
with totals as materialized (
    select t.account_id, t.back, t.sessions, t.amount_micros, a.home_partition, a.currency, m.timeline,
           b.ledger_seq + row_number() over (partition by t.account_id order by t.back desc) as seq
      from (select account_id, amount_micros > 0 as back, count(*) as sessions, sum(amount_micros)::bigint as amount_micros
              from rerated group by account_id, amount_micros > 0) as t
      join balances b on b.account_id = t.account_id
      join accounts a on a.id = t.account_id
     cross join ledger_meta m
), numbered as materialized (
    select nextval(pg_get_serial_sequence('journal', 'id')) as id, t.* from (select * from totals order by account_id, seq) t
), entry as (
    insert into journal (id, kind, origin, author, reason, account_id, ledger_seq, detail)
    select id, 'entry', 'rerate', $1, $2, account_id, seq,
           jsonb_build_object('rerate', $3::bigint, 'tariff_version', $4::integer, 'sessions', sessions)
      from numbered
), posted as (
    insert into postings (journal_id, ledger_account, account_id, partition, currency, amount_micros)
    select id, 'customer', account_id, null, currency, amount_micros from numbered
    union all
    select id, 'revenue', null, home_partition, currency, -amount_micros from numbered
), linked as (
    insert into usage_corrections (account_id, kind, session_id, journal_id, amount_micros, rerate_id, tariff_version,
                                   price_micros)
    select r.account_id, r.kind, r.session_id, n.id, r.amount_micros, $3, $4, r.price_micros
      from rerated r
      join numbered n on n.account_id = r.account_id and n.back = (r.amount_micros > 0)
     order by r.account_id, r.kind, r.session_id
), moved as (
    update balances b
       set excluded_micros = b.excluded_micros + t.debited_micros, ledger_seq = t.seq
      from (select account_id, max(seq) as seq, coalesce(sum(-amount_micros) filter (where not back), 0)::bigint as debited_micros
              from numbered group by account_id) as t
     where b.account_id = t.account_id
), announced as (
    insert into outbox (partition, account_id, ledger_seq, type, data)
    select home_partition, account_id, seq, 'ledger.entry.posted.v1', jsonb_build_object(
               'account', account_id, 'ledger_seq', seq, 'timeline', timeline, 'entry_id', id::text,
               'amount_micros', amount_micros, 'currency', currency, 'origin', 'rerate', 'reason', $2)
      from numbered order by account_id, seq
)
select count(*) from numbered;

-- name: booked
-- What re-rating $1 has booked in all.
select count(*) as sessions, count(distinct account_id) as accounts, count(distinct journal_id) as entries,
       coalesce(sum(amount_micros) filter (where amount_micros > 0), 0)::bigint as given_back_micros,
       coalesce(-sum(amount_micros) filter (where amount_micros < 0), 0)::bigint as charged_micros
  from usage_corrections where rerate_id = $1;

-- name: list
-- Every re-rating, the newest first.
select r.*, (select count(*) from usage_corrections c where c.rerate_id = r.id) as sessions from rerates r order by id desc;
