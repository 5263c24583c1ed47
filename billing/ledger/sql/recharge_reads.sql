-- name: intents
-- At most $3 intents below id $2, newest first; of account $1, or of all where it is null.
select i.*, a.home_partition
  from recharge_intents i join accounts a on a.id = i.account_id
 where i.id < $2 and ($1::text is null or i.account_id = $1)
 order by i.id desc limit $3;

-- name: evaluations
-- At most $2 evaluations of account $1, the latest first.
select id, account_id, intent_id, stage, refusal, checks, timeline, times, first_at, last_at
  from recharge_evaluations where account_id = $1
 order by last_at desc, id desc limit $2;

-- name: evaluations_of_intent
-- At most $2 evaluations of intent $1, the latest first.
select id, account_id, intent_id, stage, refusal, checks, timeline, times, first_at, last_at
  from recharge_evaluations where intent_id = $1
 order by last_at desc, id desc limit $2;

-- name: due
-- The due row of account $1.
select signalled_at, signals, usage_position, evaluate_at, last_outcome, times from recharge_due where account_id = $1;
