-- What became of dead letters. The letters stay as they are; what a person decided about one is a row here, never
-- changed, so a letter's state follows from its newest action and from how far post-flight has read.

-- The account that a letter is about, as far as its bytes say: the event's subject, else the key. Null in letters that
-- were stored before this column; their key still finds them. Keys can be of any length: only hashes can index them.
alter table dead_letters add column account_id text;
create index dead_letters_by_account on dead_letters using hash (account_id);
create index dead_letters_by_key on dead_letters using hash (key);

create table dead_letter_actions (
    id bigint generated always as identity primary key,
    topic text not null,
    partition integer not null,
    log_offset bigint not null,
    kind text not null check (kind in ('asked', 'published', 'discarded')),
    author text not null check (author <> ''),
    reason text not null check (reason <> ''),
    acted_at timestamptz not null default now(),
    to_partition integer,                                     -- where it was, or is to be, published again
    to_offset bigint,
    check ((kind = 'discarded') = (to_partition is null)),
    check ((kind = 'published') = (to_offset is not null)),
    foreign key (topic, partition, log_offset) references dead_letters
);

create index dead_letter_actions_by_letter on dead_letter_actions (topic, partition, log_offset, id);
create unique index dead_letter_discarded_once on dead_letter_actions (topic, partition, log_offset)
    where kind = 'discarded';
-- "Was this record a replay?", for a letter that is one again.
create index dead_letter_actions_by_place on dead_letter_actions (topic, to_partition, to_offset)
    where kind = 'published';

create trigger append_only before update or delete or truncate on dead_letter_actions
    for each statement execute function refuse_change();

-- open: nobody decided anything. replaying: asked for, not known to be in the log (a crash between): ask again.
-- replayed: in the log, post-flight has not read it yet. resolved: post-flight read it and took it in.
-- refused_again: it became a dead letter again, at to_partition and to_offset, and that one goes on.
create view dead_letter_states as
select d.topic, d.partition, d.log_offset, a.kind, a.author, a.reason as why, a.acted_at, a.to_partition, a.to_offset,
       case when a.kind is null then 'open'
            when a.kind = 'discarded' then 'discarded'
            when a.kind = 'asked' then 'replaying'
            when coalesce(p.next_offset, 0) <= a.to_offset then 'replayed'
            when again.log_offset is not null then 'refused_again'
            else 'resolved' end as state
  from dead_letters d
  left join lateral (select * from dead_letter_actions x
                      where (x.topic, x.partition, x.log_offset) = (d.topic, d.partition, d.log_offset)
                      order by x.id desc limit 1) as a on true
  left join positions p on a.kind = 'published' and p.topic = d.topic and p.partition = a.to_partition
  left join dead_letters again on a.kind = 'published' and again.topic = d.topic
        and again.partition = a.to_partition and again.log_offset = a.to_offset;
