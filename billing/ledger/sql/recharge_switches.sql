-- name: switch
-- The pause switch and the timeline.
select s.paused, s.author, s.reason, s.changed_at, s.reconciled_timeline, m.timeline
  from recharge_switch s cross join ledger_meta m;

-- name: set_paused
-- Pause ($1) or resume: $2 author, $3 reason. No row when it was so already.
update recharge_switch set paused = $1, author = $2, reason = $3, changed_at = clock_timestamp()
 where paused <> $1
returning paused;

-- name: reconciled
-- The charges of the ledger's present timeline are known here.
update recharge_switch set reconciled_timeline = (select timeline from ledger_meta);

-- name: breakers
-- Every currency's breaker, with what counts towards it now (money that moved in the last minute, and what may move).
select b.currency, b.open, b.tripped_at, b.tripped_by, b.reset_at, b.reset_by, b.reset_reason,
       coalesce(sum(i.amount_micros), 0)::bigint as used_micros
  from recharge_breaker b
  left join recharge_intents i on i.currency = b.currency
   and (i.state in ('proving', 'created', 'confirming', 'declined', 'withdrawn')
        or (i.state in ('succeeded', 'credited', 'confirmed')
            and i.counted_at > clock_timestamp() - interval '60 seconds'
            and i.counted_at > coalesce(b.reset_at, '-infinity')))
 group by b.currency order by b.currency;

-- name: reset
-- Close the open breakers of currency $1 (null: all): $2 who, $3 why. Returns which.
update recharge_breaker
   set open = false, reset_at = clock_timestamp(), reset_by = $2, reset_reason = $3
 where open and ($1::text is null or currency = $1)
returning currency;

-- name: set_frozen
-- Freeze ($2) account $1 or let it go: $3 author, $4 reason.
insert into recharge_freezes (account_id, frozen, author, reason)
select id, $2, $3, $4 from accounts where id = $1
    on conflict (account_id) do update
   set frozen = excluded.frozen, author = excluded.author, reason = excluded.reason, changed_at = clock_timestamp()
returning account_id;

-- name: forgive
-- The declines of account $1 so far count no more.
insert into recharge_forgiven (account_id) select id from accounts where id = $1
    on conflict (account_id) do update set forgiven_at = clock_timestamp()
returning account_id;

-- name: add_action
-- Remember who did what: $1 action, $2 subject, $3 author, $4 reason.
insert into recharge_actions (action, subject, author, reason) values ($1, $2, $3, $4);
