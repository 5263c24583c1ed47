-- name: by_key
-- The entry that an idempotency key ($1) was used for.
select id, account_id, ledger_seq, idempotency_key, input_hash from journal where idempotency_key = $1;

-- name: insert_entry
-- An entry of account $1: $2 ledger_seq, $3 kind, $4 origin, $5 author, $6 reason, $7 key, $8 hash of the input,
-- $9 detail, $10 the entry that it corrects.
insert into journal (account_id, ledger_seq, kind, origin, author, reason, idempotency_key, input_hash, detail, corrects_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
returning id;

-- name: insert_postings
-- The lines of entry $1, as arrays: $2 ledger accounts, $3 accounts, $4 partitions, $5 currencies, $6 amounts.
insert into postings (journal_id, ledger_account, account_id, partition, currency, amount_micros)
select $1, * from unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::bigint[]);

-- name: move
-- The balance row of account $1, locked before: $2 added to the debits that are not usage, $3 the new ledger_seq. The
-- money itself is moved by the postings (see 0010_settlement.sql).
update balances set excluded_micros = excluded_micros + $2, ledger_seq = $3 where account_id = $1;

-- name: announce
-- Outbox: $1 partition, $2 account, $3 ledger_seq, $4 type, $5 data.
insert into outbox (partition, account_id, ledger_seq, type, data) values ($1, $2, $3, $4, $5);

-- name: announce_catalogue
-- Catalogue outbox: $1 key, $2 type, $3 data, $4 account, $5 ledger_seq that must have left the outbox before.
insert into catalogue_outbox (key, type, data, account_id, ledger_seq) values ($1, $2, $3, $4, $5);
