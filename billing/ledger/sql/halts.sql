-- name: halted
-- Every halted partition, as the ledger has it.
select topic, partition, halted, halted_at, next_offset, fingerprint from positions
 where halted is not null order by topic, partition;

-- name: lift
-- Let ($1 topic, $2 partition), halted for $3 at offset $4, go on at offset $5, last record $6. No row when that has
-- changed meanwhile.
update positions set halted = null, next_offset = $5, fingerprint = $6
 where topic = $1 and partition = $2 and halted = $3 and next_offset = $4
returning partition;
