-- name: page
-- At most $4 dead letters after ($1 topic, $2 partition, $3 offset), in that order, of: $5 reason, $6 account, log time
-- in ms from $7 to before $8, $9 topic, $10 partition, $11 states, $12 stored by then; null is any.
select d.topic, d.partition, d.log_offset, d.log_time_ms, d.reason, d.detail, d.key, d.value, d.headers, d.account_id,
       d.stored_at, s.state, s.to_partition, s.to_offset
  from dead_letters d
 cross join lateral (select * from dead_letter_states s
                      where s.topic = d.topic and s.partition = d.partition and s.log_offset = d.log_offset
                     offset 0) as s  -- one by one, in the order of the key, until there are enough
 where (d.topic, d.partition, d.log_offset) > ($1::text, $2::integer, $3::bigint)
   and ($5::text is null or d.reason = $5)
   and ($6::text is null or d.account_id = $6 or d.key = convert_to($6, 'UTF8'))
   and ($7::bigint is null or d.log_time_ms >= $7) and ($8::bigint is null or d.log_time_ms < $8)
   and ($9::text is null or d.topic = $9) and ($10::integer is null or d.partition = $10)
   and ($11::text[] is null or s.state = any($11)) and ($12::timestamptz is null or d.stored_at <= $12)
 order by d.topic, d.partition, d.log_offset limit $4;

-- name: total
-- How many there are of: $1 reason, $2 account, log time in ms from $3 to before $4, $5 topic, $6 partition, $7 states,
-- $8 stored by then; null is any.
select count(*)
  from dead_letters d
 where ($1::text is null or d.reason = $1)
   and ($2::text is null or d.account_id = $2 or d.key = convert_to($2, 'UTF8'))
   and ($3::bigint is null or d.log_time_ms >= $3) and ($4::bigint is null or d.log_time_ms < $4)
   and ($5::text is null or d.topic = $5) and ($6::integer is null or d.partition = $6)
   and ($7::text[] is null
        or exists (select from dead_letter_states s
                    where s.topic = d.topic and s.partition = d.partition and s.log_offset = d.log_offset
                      and s.state = any($7)))
   and ($8::timestamptz is null or d.stored_at <= $8);

-- name: now
-- The ledger's clock.
select clock_timestamp();

-- name: at
-- The dead letters at ($1 topics, $2 partitions, $3 offsets, as arrays).
select d.topic, d.partition, d.log_offset, d.log_time_ms, d.reason, d.detail, d.key, d.value, d.headers, d.account_id,
       d.stored_at, s.state, s.to_partition, s.to_offset
  from unnest($1::text[], $2::integer[], $3::bigint[]) with ordinality as w (topic, partition, log_offset, number)
  join dead_letters d using (topic, partition, log_offset)
  join dead_letter_states s using (topic, partition, log_offset)
 order by w.number;

-- name: actions
-- What people did with the letter at ($1 topic, $2 partition, $3 offset), in order.
select kind, author, reason, acted_at, to_partition, to_offset
  from dead_letter_actions where topic = $1 and partition = $2 and log_offset = $3 order by id;

-- name: replayed_from
-- The letter whose replay is the record at ($1 topic, $2 partition, $3 offset); no row where it was not one.
select partition, log_offset from dead_letter_actions
 where topic = $1 and to_partition = $2 and to_offset = $3 and kind = 'published' limit 1;

-- name: copies
-- Which of the letters at ($1 topics, $2 partitions, $3 offsets) came from a replay: one that says so, or one that was
-- asked for and may be in the log, of the same bytes.
select d.topic, d.partition, d.log_offset
  from unnest($1::text[], $2::integer[], $3::bigint[]) as w (topic, partition, log_offset)
  join dead_letters d using (topic, partition, log_offset)
 where exists (select from dead_letter_actions a
                where a.topic = d.topic and a.to_partition = d.partition and a.to_offset = d.log_offset
                  and a.kind = 'published')
    or exists (select from dead_letters o join dead_letter_states s using (topic, partition, log_offset)
                where o.key = d.key and o.topic = d.topic and o.value is not distinct from d.value
                  and (o.partition, o.log_offset) <> (d.partition, d.log_offset) and s.state = 'replaying');

-- name: lock
-- Decide about dead letters one at a time ($1 lock space, $2 lock), so that none is discarded and replayed at once.
select pg_advisory_xact_lock($1::integer, $2::integer);

-- name: ask
-- Before they are published again, under the lock: the letters at ($1 topics, $2 partitions, $3 offsets) are to go to
-- the partitions $4 ($5 author, $6 reason). Only those that may; returns them.
insert into dead_letter_actions (topic, partition, log_offset, kind, author, reason, to_partition)
select s.topic, s.partition, s.log_offset, 'asked', $5, $6, w.to_partition
  from unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[]) as w (topic, partition, log_offset, to_partition)
  join dead_letter_states s using (topic, partition, log_offset)
 where s.state in ('open', 'replaying')
returning topic, partition, log_offset;

-- name: mark_published
-- Kafka has acknowledged the letters at ($1 topics, $2 partitions, $3 offsets) at ($4 partitions, $5 offsets); $6 author,
-- $7 reason.
insert into dead_letter_actions (topic, partition, log_offset, kind, author, reason, to_partition, to_offset)
select topic, partition, log_offset, 'published', $6, $7, to_partition, to_offset
  from unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::bigint[])
       as w (topic, partition, log_offset, to_partition, to_offset);

-- name: discard
-- Give up the letters at ($1 topics, $2 partitions, $3 offsets), under the lock; $4 author, $5 reason. Only open ones:
-- of what was asked for and may be in the log, publishing again says what became of it. Returns them.
insert into dead_letter_actions (topic, partition, log_offset, kind, author, reason)
select s.topic, s.partition, s.log_offset, 'discarded', $4, $5
  from unnest($1::text[], $2::integer[], $3::bigint[]) as w (topic, partition, log_offset)
  join dead_letter_states s using (topic, partition, log_offset)
 where s.state = 'open'
returning topic, partition, log_offset;

-- name: assignments
-- Every plan assignment of the accounts $1, with where their usage begins.
select p.account_id as account, p.version, p.plan, p.effective_ms, a.home_partition, a.usage_position
  from plan_assignments p join accounts a on a.id = p.account_id
 where p.account_id = any($1::text[]);

-- name: versions
-- Every version of the tariffs of the plans $1.
select plan, version, currency, effective_ms from tariffs where plan = any($1::text[]) order by plan, version;

-- name: settled
-- Where the sessions ($1 accounts, $2 kinds, $3 session ids) were settled.
select u.account_id, u.kind, u.session_id, u.partition, u.log_offset
  from unnest($1::text[], $2::text[], $3::text[]) as w (account_id, kind, session_id)
  join usage u using (account_id, kind, session_id);

-- name: unresolved
-- Dead letters per reason of which nothing has come yet, and when the oldest of them was stored (seconds since 1970);
-- every reason that there are letters of. Counts come from an index alone, what is done with is counted on its own.
with closed as (
    select d.reason, count(*) as letters
      from (select distinct topic, partition, log_offset from dead_letter_actions) as k
      join dead_letter_states s using (topic, partition, log_offset)
      join dead_letters d using (topic, partition, log_offset)
     where s.state in ('discarded', 'resolved', 'refused_again')
     group by d.reason
), stored as (
    select reason, count(*) as letters from dead_letters group by reason
)
select stored.reason, stored.letters - coalesce(closed.letters, 0) as letters,
       (select extract(epoch from d.stored_at)::float8
          from dead_letters d
         where d.reason = stored.reason and stored.letters > coalesce(closed.letters, 0)
           and not exists (select from dead_letter_actions a
                            where (a.topic, a.partition, a.log_offset) = (d.topic, d.partition, d.log_offset)
                              and a.kind in ('discarded', 'published'))
         order by d.stored_at limit 1) as oldest_at
  from stored left join closed using (reason);
