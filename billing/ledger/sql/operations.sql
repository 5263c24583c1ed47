-- name: has_entries
-- Has anything ever been booked?
select exists (select from journal) as found;
