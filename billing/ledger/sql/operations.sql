-- name: has_entries
-- Has anything ever been booked?
select exists (select from journal) as found;

-- name: unlisted
-- Whether catalogue records of the accounts $1 still wait to be published.
select exists (select from catalogue_outbox where account_id = any($1::text[]));
