-- name: suspended_by
-- Who set the present status of account $1: the newest change of it.
select author from journal
 where account_id = $1 and kind = 'changed' and detail -> 'to' ? 'status'
 order by ledger_seq desc limit 1;

-- name: suspended
-- At most $2 accounts after $1 in id order that are suspended, by $3.
select a.id from accounts a
 where a.status = 'suspended' and a.id > $1
   and (select j.author from journal j
         where j.account_id = a.id and j.kind = 'changed' and j.detail -> 'to' ? 'status'
         order by j.ledger_seq desc limit 1) = $3
 order by a.id limit $2;
