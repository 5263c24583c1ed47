-- name: books_sum_to_zero
-- Postings sum to zero per currency. Each check answers: how many things violate it, and one of them.
select count(*) as violations, min(currency || ' is off by ' || total) as example
  from (select currency, sum(amount_micros) as total from postings group by currency) as books where total <> 0;

-- name: entries_sum_to_zero
-- So does every single entry, and it is in the journal.
select count(*) as violations, min('entry ' || journal_id || ' is off by ' || total || ' ' || currency) as example
  from (select journal_id, currency, sum(amount_micros) as total from postings
         group by journal_id, currency having sum(amount_micros) <> 0) as entries;

-- name: postings_have_entries
-- No posting without its entry; no entry of an amount without postings.
select count(*) as violations, min('entry ' || id) as example
  from (select coalesce(j.id, p.journal_id) as id
          from (select distinct journal_id from postings) as p
          full join (select id, kind from journal) as j on j.id = p.journal_id
         where j.id is null or (p.journal_id is null and j.kind in ('settlement', 'entry'))) as strange;

-- name: balances_equal_postings
-- credit - used of every account is the sum of the postings on its liability account, in its currency.
select count(*) as violations, min('account ' || id || ': balance ' || coalesce(balance::text, 'missing')
           || ', postings ' || coalesce(posted::text, 'none') || ' ' || coalesce(currency, '')) as example
  from (select coalesce(b.id, p.account_id) as id, b.balance, p.posted, p.currency
          from (select a.id, a.currency, c.credit_micros - c.used_micros as balance
                  from accounts a left join balances c on c.account_id = a.id) as b
          full join (select account_id, currency, sum(amount_micros) as posted from postings
                      where ledger_account = 'customer' group by account_id, currency) as p
            on p.account_id = b.id and p.currency = b.currency
         where b.balance is null or b.balance <> coalesce(p.posted, 0)) as strange;

-- name: used_equals_usage
-- used of every account is the sum of its settled sessions, archived ones included, and the last of them that cost
-- something is the one that the balance names.
select count(*) as violations, min('account ' || id || ': used ' || coalesce(used::text, 'missing') || ', usage '
           || coalesce(total::text, '0')) as example
  from (select coalesce(b.account_id, u.account_id) as id, b.used_micros as used, u.total
          from balances b
          full join (select account_id, sum(amount_micros) as total, max(last_offset) as last_offset
                       from (select s.account_id, sum(s.amount_micros) as amount_micros,
                                    max(s.log_offset) filter (where s.amount_micros <> 0
                                        and s.partition = a.home_partition and s.log_offset >= a.usage_position)
                                        as last_offset
                               from usage s left join accounts a on a.id = s.account_id group by s.account_id
                             union all
                             select x.account_id, x.amount_micros,
                                    case when x.placed_ms = a.placed_ms then x.last_offset end
                               from archived_accounts x left join accounts a on a.id = x.account_id) as charged
                      group by account_id) as u on u.account_id = b.account_id
         where b.used_micros is distinct from coalesce(u.total, 0)
            or b.last_charged_offset is distinct from u.last_offset) as strange;

-- name: usage_equals_journal
-- The sessions of every settlement, archived ones included, sum to its revenue, per currency, and belong to its partition
-- and offsets.
select count(*) as violations, min('settlement ' || id || ': usage ' || coalesce(used::text, '0') || ', revenue '
           || coalesce(earned::text, '0')) as example
  from (select coalesce(u.journal_id, p.journal_id) as id, u.used, p.earned
          from (select journal_id, currency, partition, sum(amount_micros) as used, min(first_offset) as first_offset,
                       max(last_offset) as last_offset
                  from (select journal_id, currency, partition, sum(amount_micros) as amount_micros,
                               min(log_offset) as first_offset, max(log_offset) as last_offset
                          from usage where journal_id is not null group by journal_id, currency, partition
                        union all
                        select journal_id, currency, partition, amount_micros, first_offset, last_offset
                          from archived_settlements) as settled
                 group by journal_id, currency, partition) as u
          full join (select s.journal_id, s.currency, s.amount_micros as earned, s.partition, j.from_offset, j.to_offset
                       from postings s join journal j on j.id = s.journal_id
                      where j.kind = 'settlement' and s.ledger_account = 'revenue') as p
            on p.journal_id = u.journal_id and p.currency = u.currency and p.partition = u.partition
         where u.used is distinct from p.earned or u.first_offset < p.from_offset
            or u.last_offset >= p.to_offset) as strange;

-- name: entries_are_in_sequence
-- The entries of every account are numbered 1 to its ledger_seq.
select count(*) as violations, min('account ' || id || ': ledger_seq ' || coalesce(ledger_seq::text, 'missing')
           || ', entries ' || coalesce(entries::text, '0')) as example
  from (select coalesce(b.account_id, j.account_id) as id, b.ledger_seq, j.entries
          from balances b
          full join (select account_id, count(*) as entries, min(ledger_seq) as first, max(ledger_seq) as last
                       from journal where account_id is not null group by account_id) as j
            on j.account_id = b.account_id
         where b.ledger_seq is distinct from j.entries or j.first <> 1 or j.last <> j.entries) as strange;

-- name: outbox_is_the_tail
-- What waits in the outbox is the end of each account's entries, without a hole.
select count(*) as violations, min('account ' || account_id || ': ' || first || ' to ' || last) as example
  from (select o.account_id, min(o.ledger_seq) as first, max(o.ledger_seq) as last, count(*) as waiting, b.ledger_seq
          from outbox o left join balances b on b.account_id = o.account_id
         group by o.account_id, b.ledger_seq) as tails
 where ledger_seq is distinct from last or waiting <> last - first + 1;

-- name: accounts_are_whole
-- Every account has a balance and a first plan, of its currency, and a home partition that exists.
select count(*) as violations, min('account ' || id) as example
  from (select a.id
          from accounts a
          left join balances b on b.account_id = a.id
          left join plan_assignments p on p.account_id = a.id and p.version = 1
          left join tariffs t on t.plan = p.plan and t.version = 1
         cross join ledger_meta m
         where b.account_id is null or t.currency is distinct from a.currency
            or a.home_partition not between 0 and coalesce(m.moving_to, m.partitions) - 1) as strange;

-- name: usage_is_in_place
-- Sessions are below their partition's position, in their account's currency, and in its home partition at or above its
-- opening or its move there, or where it was before, up to its move from there.
select count(*) as violations, min('session ' || account_id || '/' || kind || '/' || session_id) as example
  from (select u.account_id, u.kind, u.session_id
          from usage u
          left join accounts a on a.id = u.account_id
          left join positions p on p.partition = u.partition and p.topic = 'usage.events'
         where a.id is null or u.currency <> a.currency or u.log_offset >= coalesce(p.next_offset, 0)
            or (u.log_offset < a.usage_position or u.partition <> a.home_partition)
               and not exists (select from account_moves m
                                where m.account_id = u.account_id and m.from_partition = u.partition
                                  and u.log_offset >= m.from_position and u.log_offset < m.until_position)) as strange;

-- name: dead_letters_are_in_place
-- Dead letters are below their partition's position.
select count(*) as violations, min('dead letter ' || d.topic || '/' || d.partition || '/' || d.log_offset) as example
  from dead_letters d
  left join positions p on p.topic = d.topic and p.partition = d.partition
 where d.log_offset >= coalesce(p.next_offset, 0);

-- name: recharges_are_booked
-- Every recharge that says it is credited has its entry, with the amount received; every recharge entry has its recharge.
select count(*) as violations, min('account ' || coalesce(i.account_id, j.account_id) || ', entry '
           || coalesce(i.credit_seq, j.ledger_seq)) as example
  from (select * from recharge_intents where credit_seq is not null) as i
  full join (select e.account_id, e.ledger_seq, e.idempotency_key, p.amount_micros
               from journal e
               join postings p on p.journal_id = e.id and p.ledger_account = 'customer'
              where e.origin = 'recharge') as j
    on j.account_id = i.account_id and j.ledger_seq = i.credit_seq
 where i.id is null or j.account_id is null
    or j.idempotency_key is distinct from concat_ws(':', 'recharge', i.timeline, i.account_id, i.episode, 'credit')
    or j.amount_micros <> i.received_minor * (i.amount_micros / i.amount_minor);

-- name: corrections_equal_entries
-- Every refund and re-rating gave back what its sessions say, to their account.
select count(*) as violations, min('entry ' || id || ': books ' || coalesce(booked::text, 'nothing') || ', its sessions '
           || coalesce(corrected::text, 'nothing')) as example
  from (select coalesce(j.id, c.journal_id) as id, j.booked, c.corrected
          from (select e.id, e.account_id, sum(p.amount_micros) as booked
                  from journal e
                  left join postings p on p.journal_id = e.id and p.ledger_account = 'customer'
                 where e.origin in ('refund', 'rerate') group by e.id, e.account_id) as j
          full join (select journal_id, account_id, sum(amount_micros) as corrected
                       from usage_corrections group by journal_id, account_id) as c
            on c.journal_id = j.id and c.account_id = j.account_id
         where j.booked is distinct from c.corrected) as strange;

-- name: corrections_fit_usage
-- No session was corrected beyond its price, and every corrected one is settled (perhaps archived since).
select count(*) as violations, min('session ' || account_id || '/' || kind || '/' || session_id || ': price '
           || coalesce(price::text, 'missing') || ', given back ' || back) as example
  from (select c.account_id, c.kind, c.session_id, c.back, u.amount_micros as price
          from (select account_id, kind, session_id, sum(amount_micros) as back
                  from usage_corrections group by account_id, kind, session_id) as c
          left join usage u using (account_id, kind, session_id)
         where u.amount_micros < c.back
            or u.amount_micros is null
               and not exists (select from archived_accounts a where a.account_id = c.account_id)) as strange;

-- name: corrected_entries_are_there
-- What an entry says that it corrects is there, and of no payment more was taken back than it was, or came back than
-- was taken.
select count(*) as violations, min('entry ' || id || ' (' || coalesce(left_micros::text, 'missing') || ')') as example
  from (select c.corrects_id as id, sum(o.amount_micros) + coalesce(sum(c.amount_micros), 0) as left_micros
          from (select e.corrects_id, sum(p.amount_micros) filter (where e.origin in ('payment_refund', 'chargeback'))
                           as amount_micros
                  from journal e
                  join postings p on p.journal_id = e.id and p.ledger_account = 'customer'
                 where e.corrects_id is not null group by e.corrects_id) as c
          left join journal j on j.id = c.corrects_id
          left join lateral (select sum(abs(p.amount_micros)) as amount_micros from postings p
                              where p.journal_id = j.id and p.ledger_account = 'customer') as o on j.id is not null
         group by c.corrects_id, j.id
        having j.id is null or sum(o.amount_micros) + coalesce(sum(c.amount_micros), 0) < 0
            or sum(c.amount_micros) > 0) as strange;

-- name: archives_add_up
-- The archives name as many sessions, and as much money per currency, as is kept in sums of what they took away.
select count(*) as violations, min(what || ': archives ' || coalesce(named::text, '0') || ', sums '
           || coalesce(kept::text, '0')) as example
  from (select what, sum(named) as named, sum(kept) as kept
          from (select a.key as what, a.value::text::numeric as named, 0 as kept
                  from usage_archives cross join lateral jsonb_each(amounts) as a
                union all select 'sessions', sessions, 0 from usage_archives
                union all
                select c.currency, 0, x.amount_micros
                  from archived_accounts x join accounts c on c.id = x.account_id
                union all select 'sessions', 0, sessions from archived_accounts) as each
         group by what) as sums
 where named <> kept;
