-- name: ensure_episode
-- Account $1 has an episode.
insert into recharge_episodes (account_id) values ($1) on conflict do nothing;

-- name: open
-- An intent of account $1 in its present episode: $2 timeline, $3 currency, $4 amount in micro-units and $5 in minor
-- units, $6 customer, $7 payment method, $8 usage position, $9 who drives it from the start (or null), $10 for ms.
with fresh as (
    insert into recharge_intents (account_id, episode, timeline, currency, amount_micros, amount_minor, customer,
                                  payment_method, usage_position, lease_owner, lease_epoch, lease_until)
    select account_id, episode, $2, $3, $4, $5, $6, $7, $8, $9::text, case when $9::text is null then 0 else 1 end,
           case when $9::text is not null then clock_timestamp() + $10::bigint * interval '1 ms' end
      from recharge_episodes where account_id = $1
    returning *
)
select i.*, a.home_partition from fresh i join accounts a on a.id = i.account_id;

-- name: lease
-- Up to $1 open intents whose time has come and that nobody drives, for $2, for $3 ms.
update recharge_intents i
   set lease_owner = $2, lease_epoch = lease_epoch + 1, lease_until = clock_timestamp() + $3::bigint * interval '1 ms'
  from accounts a
 where a.id = i.account_id
   and i.id in (select id from recharge_intents
                 where state not in ('confirmed', 'cancelled', 'refused') and next_at <= clock_timestamp()
                   and (lease_until is null or lease_until < clock_timestamp())
                 order by next_at limit $1
                   for update skip locked)
returning i.*, a.home_partition;

-- name: save
-- What the protocol made of intent $1, if its lease $2 still stands and its state still is $3: $4 state, $5 payment,
-- $6 received (minor units), $7 credit_seq, $8 and $9 attempts, $10 reason; look again in $11 ms.
update recharge_intents i
   set state = $4, payment_id = $5, received_minor = $6, credit_seq = $7, create_attempt = $8, confirm_attempt = $9,
       reason = $10, next_at = clock_timestamp() + $11::bigint * interval '1 ms',
       lease_until = case when $4::text in ('confirmed', 'cancelled', 'refused') then null else lease_until end
  from accounts a
 where i.id = $1 and a.id = i.account_id and i.lease_epoch = $2 and i.state = $3
returning i.*, a.home_partition;

-- name: renew
-- Keep the lease $2 of intent $1 for $3 ms from now; no row when it is lost.
update recharge_intents
   set lease_until = clock_timestamp() + $3::bigint * interval '1 ms'
 where id = $1 and lease_epoch = $2
returning id;

-- name: release
-- Give the lease $2 of intent $1 back and look again in $3 ms; no row when it is lost.
update recharge_intents
   set lease_until = null, lease_owner = null, next_at = clock_timestamp() + $3::bigint * interval '1 ms'
 where id = $1 and lease_epoch = $2
returning id;

-- name: lock
-- Intent $1, locked (after the account's balance row, where both are).
select i.*, a.home_partition
  from recharge_intents i join accounts a on a.id = i.account_id
 where i.id = $1 for update of i;

-- name: overrule
-- As save, by whoever holds the row's lock: whoever held the lease has lost it.
update recharge_intents i
   set state = $2, payment_id = $3, received_minor = $4, credit_seq = $5, create_attempt = $6, confirm_attempt = $7,
       reason = $8, lease_epoch = lease_epoch + $9::integer, next_at = clock_timestamp(),
       lease_until = case when $9::integer > 0 then null else lease_until end
  from accounts a
 where i.id = $1 and a.id = i.account_id
returning i.*, a.home_partition;

-- name: by_id
-- Intent $1.
select i.*, a.home_partition from recharge_intents i join accounts a on a.id = i.account_id where i.id = $1;

-- name: by_payment
-- The intent whose payment is $1.
select i.*, a.home_partition from recharge_intents i join accounts a on a.id = i.account_id where i.payment_id = $1;

-- name: by_episode
-- The intent of ($1 account, $2 episode) that was made under timeline $3.
select i.*, a.home_partition
  from recharge_intents i join accounts a on a.id = i.account_id
 where i.account_id = $1 and i.episode = $2 and i.timeline = $3;

-- name: open_of
-- The open intents of account $1: one, and late successes.
select i.*, a.home_partition
  from recharge_intents i join accounts a on a.id = i.account_id
 where i.account_id = $1 and i.state not in ('confirmed', 'cancelled', 'refused')
 order by i.id;

-- name: counts
-- How many intents there are in each state.
select state, count(*) as intents from recharge_intents group by state;
