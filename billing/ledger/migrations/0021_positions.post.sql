-- A position moves as the sinks move it, and no other way (R8, R9), whoever writes: forward, in the transaction that has
-- locked it (sink.lock_position, which the effects follow), to where its new fingerprint says. A fingerprint is a hash of
-- the record there, and consumers compare it with the log. One row per batch, so this costs a settlement nothing.
-- After the deployment: processes of the build before do not say that they have locked it.

create function check_position_moves() returns trigger language plpgsql as $$
declare
    moved boolean := (new.next_offset, new.fingerprint, new.log_time_ms)
                     is distinct from (old.next_offset, old.fingerprint, old.log_time_ms);
    wrong text;
begin
    if (new.topic, new.partition) is distinct from (old.topic, old.partition) then
        wrong := 'it is another one';
    elsif new.next_offset < old.next_offset or new.log_time_ms < old.log_time_ms then
        wrong := 'it never goes back';
    elsif new.epoch < old.epoch or new.epoch > old.epoch + 1 or new.epoch = old.epoch and new.nonce <> old.nonce then
        wrong := 'an owner comes by the next epoch';
    elsif moved and new.epoch <> old.epoch then
        wrong := 'a claim moves nothing';
    elsif moved and new.halted is not null then
        wrong := 'it is halted';
    elsif moved and old.halted is null
          and current_setting('billing.locked_position', true) is distinct from old.topic || '-' || old.partition then
        wrong := 'it moves in the transaction that has locked it and stores what the batch did';
    elsif new.fingerprint <> old.fingerprint and old.halted is null
          and (new.fingerprint !~ '^[0-9]{1,18}:[0-9a-f]{16}$'
               or split_part(new.fingerprint, ':', 1)::bigint not between old.next_offset and new.next_offset - 1) then
        wrong := 'its fingerprint is of no record of that batch';
    end if;
    if wrong is not null then
        raise exception 'position %-% at % is left alone: % (R8)', old.topic, old.partition, old.next_offset, wrong
            using errcode = 'restrict_violation';
    end if;
    return new;
end $$;

create trigger moved_by_sinks before update on positions for each row execute function check_position_moves();

-- Only lifting a halt moves a position without records (`billing halts lift`), and says who, why, and what was lost.
create function check_lift() returns trigger language plpgsql as $$
begin
    if not exists (select from findings where kind in ('halt_lifted', 'records_lost') and partition = new.partition
                                          and found_at = now()) then
        raise exception 'position %-% was halted at %: it moves only with a finding that says why (R8)',
            old.topic, old.partition, old.next_offset using errcode = 'restrict_violation';
    end if;
    return null;
end $$;

create constraint trigger lifted_with_a_reason after update on positions deferrable initially deferred
    for each row when (old.halted is not null and (new.next_offset <> old.next_offset or new.fingerprint <> old.fingerprint))
    execute function check_lift();
