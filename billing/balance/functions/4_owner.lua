-- What a partition's owner does beside applying batches.

local function claim(keys, args) -- ARGV goes on after the incarnation: (unused), nonce
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local epoch = text(tonumber(state.epoch) + 1)
  write('HSET', keys[META], 'epoch', epoch, 'nonce', args[6])
  return {'claimed', epoch, text(state.usage_offset), state.usage_fingerprint, text(state.entries_offset),
    state.entries_fingerprint, state.timeline}
end

local function halt(keys, args) -- ARGV goes on: reason
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  set_halted(keys, args[7])
  return {'halted', args[7]}
end

-- An operator has seen that the cause is gone. Only of the halt that was looked at.
local function lift(keys, args) -- ARGV goes on after the incarnation: reason
  if args[1] ~= VERSION then
    return {'refused', 'function version is ' .. VERSION .. ', expected ' .. args[1]}
  elseif redis.call('HGET', keys[META], 'halted') ~= args[5] then
    return {'moved'}
  end
  write('HDEL', keys[META], 'halted', 'halted_at')
  return {'applied'}
end

-- The amount of a hold that is as the functions write it, else false.
local function readable_hold(packed)
  local amount, elapsed, lease_end = unpack_hold(packed)
  return whole(amount, 0) and whole(elapsed, 0) and whole(lease_end, 0) and amount
end

-- Looks through the holds of the whole partition, 0.7 us each: what those of an account hold that can be read, and the
-- sessions of the others.
local function held_by(keys, account)
  local cursor, amounts, lost, held = '0', {}, {}, 0
  repeat
    local page = redis.call('HSCAN', keys[SESS], cursor, 'MATCH', '?/' .. account .. '/*', 'COUNT', CHUNK)
    cursor = page[1]
    for i = 1, #page[2], 2 do -- a session may come twice
      amounts[page[2][i]] = readable_hold(page[2][i + 1])
    end
  until cursor == '0'
  for session, amount in pairs(amounts) do
    held = held + (amount or 0)
    if not amount then
      lost[#lost + 1] = session
    end
  end
  return held, lost
end

-- Release these sessions' holds in tables: returns the accounts' fields to write. With an outbox the holds have expired:
-- that is a signal, and what it changes is watched; not where the balance is unknown (R1). Of a hold that cannot be read
-- nobody knows what it held: it goes without a signal, and what the account holds is counted anew.
local function release(keys, sessions, out)
  local holds, names, freed, damaged = read_all('HMGET', keys[SESS], sessions), {}, {}, {}
  for i, session in ipairs(sessions) do
    local account = string.match(session, '^[^/]*/([^/]*)/')
    if holds[i] and not freed[account] then
      freed[account] = {}
      names[#names + 1] = account
    end
    local amount = holds[i] and readable_hold(holds[i])
    if amount then
      freed[account][session] = amount
    elseif holds[i] then
      damaged[account] = true
    end
  end
  local unknown, set = read_all('HMGET', keys[DERIVING], names), {}
  for i, packed in ipairs(read_all('HMGET', keys[ACCT], names)) do
    if packed then
      local account, record = names[i], unpack_account(packed)
      if damaged[account] then
        record[HELD] = held_by(keys, account)
      end
      for _, amount in pairs(freed[account]) do
        record[HELD] = record[HELD] - amount
      end
      if out and not unknown[i] then
        for session, amount in pairs(freed[account]) do
          note(out, S_EXPIRED, account, record, session, amount)
        end
        watch(keys, out, account, record)
      end
      set[#set + 1] = account
      set[#set + 1] = pack_account(record)
    end
  end
  return set
end

-- Expire leases that ended at or before log time, when the owner has just seen the log's end. Each is a signal, so they
-- wait while too many signals are unpublished, and until everything up to the end is applied here, as the owner believes.
-- ARGV goes on: at the end (1 or 0), most expiries, most unknown accounts to name, believed offsets of usage and entries
-- ('': unsaid)
local function tend(keys, args)
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  local ended, out = {}, outbox(state.usage_offset, state.log_time)
  local usage_offset, entries_offset = text(state.usage_offset), text(state.entries_offset)
  local as_believed = (args[10] == '' or args[10] == usage_offset) and (args[11] == '' or args[11] == entries_offset)
  if args[7] == '1' and as_believed and not full(keys, out) then
    ended = redis.call('ZRANGEBYSCORE', keys[LEASE], '-inf', text(state.log_time), 'LIMIT', '0', args[8])
  end
  if #ended > 0 then
    local set = release(keys, ended, out)
    mark_torn(keys)
    write_all('ZREM', keys[LEASE], ended)
    write_all('HDEL', keys[SESS], ended)
    write_signals(keys, out)
    write_all('HSET', keys[ACCT], set)
    finish(keys, {'expired', text(state.expired + #ended)})
  end
  local unknown = {}
  if redis.call('HLEN', keys[DERIVING]) > 0 then
    unknown = redis.call('HRANDFIELD', keys[DERIVING], args[9], 'WITHVALUES')
  end
  return {'tended', redis.call('ZCARD', keys[LEASE]), text(state.log_time), ended, unknown,
    redis.call('XLEN', keys[SIG]), usage_offset, state.usage_fingerprint, entries_offset, state.entries_fingerprint}
end

-- Sessions that the ledger has settled, of an account whose balance is unknown: remembered, their holds released.
local function settled(keys, args) -- ARGV goes on: account, timeline, packed sessions
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  elseif args[8] ~= state.timeline then
    return {'timeline'}
  elseif redis.call('HEXISTS', keys[DERIVING], args[7]) == 0 then
    return {'moved'}
  end
  local sessions = cmsgpack.unpack(args[9])
  local set, fields = release(keys, sessions), {}
  local current = generation(state, state.log_time)
  mark_torn(keys)
  settle(keys, state, current, sessions, fields)
  write_all('HDEL', keys[SESS], sessions)
  write_all('ZREM', keys[LEASE], sessions)
  write_all('HSET', keys[ACCT], set)
  finish(keys, fields)
  return {'applied'}
end

-- The flags of a derived record: what holds is told, though it may have been before, and what has ended since `told`.
local function retell(keys, out, account, record, told)
  local flags = conditions_of(record)
  for _, value in ipairs({LOW, EXHAUSTED, SUSPENDED}) do
    if bit(flags, value) and bit(told, value) then
      told = told - value
    end
  end
  record[FLAGS] = told
  if flags ~= told then
    turn(keys, out, account, record, flags)
  end
end

-- Holds that were passed while the balance was unknown (session, amount, elapsed, lease end, …), taken as `place` takes
-- them. Returns what to write; nil where what is held leaves its bounds.
local function bring_back(keys, state, account, record, passed)
  local sessions, settled, set, leases = {}, {}, {}, {}
  for i = 1, #passed, 4 do
    sessions[#sessions + 1] = passed[i]
  end
  local _, visible = generation(state, state.log_time)
  for _, slot in ipairs(visible) do
    for i, found in ipairs(read_all('SMISMEMBER', keys[DONE + slot], sessions)) do
      settled[i] = settled[i] or found == 1
    end
  end
  local stored, damaged = read_all('HMGET', keys[SESS], sessions), false
  for i, packed in ipairs(stored) do
    if packed and not readable_hold(packed) then -- as if it were not there
      stored[i], damaged = false, true
    end
  end
  if damaged then
    record[HELD] = held_by(keys, account)
  end
  for i, packed in ipairs(stored) do
    local amount, elapsed, lease_end = passed[4 * i - 2], passed[4 * i - 1], passed[4 * i]
    local before, old_elapsed, old_end = 0, -1, 0
    if packed then
      before, old_elapsed, old_end = unpack_hold(packed)
    end
    if elapsed == old_elapsed then
      amount = before
    end
    if not settled[i] and elapsed >= old_elapsed then
      record[HELD] = record[HELD] + (amount - before)
      lease_end = math.max(lease_end, old_end)
      set[#set + 1] = sessions[i]
      set[#set + 1] = pack_hold(amount, elapsed, lease_end)
      leases[#leases + 1] = text(lease_end)
      leases[#leases + 1] = sessions[i]
    end
    if not within(record[HELD]) then
      return nil
    end
  end
  return set, leases
end

-- The ledger's record of an account takes the place of "unknown", if nothing has happened since it was asked for.
-- ARGV goes on: account, offset asked for, timeline, packed record without holds, packed holds that were passed
local function derive(keys, args)
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  local packed = redis.call('HGET', keys[DERIVING], args[7])
  local unknown = packed and cmsgpack.unpack(packed)
  local record = unpack_account(args[10])
  if not whole_account(record) then
    return {'refused', 'malformed snapshot'}
  end
  if args[9] ~= state.timeline then
    return {'timeline'}
  elseif not unknown or text(unknown[U_OFFSET]) ~= args[8] then
    return {'moved'}
  elseif record[SEQ] < unknown[U_SEEN] then
    return {'lagging'}
  end
  local old = redis.call('HGET', keys[ACCT], args[7])
  old = old and unpack_account(old)
  record[HELD] = old and old[HELD] or 0
  local holds, leases = bring_back(keys, state, args[7], record, cmsgpack.unpack(args[11]))
  if not holds then
    return {'overflow'}
  end
  local out = outbox(state.usage_offset, state.log_time)
  retell(keys, out, args[7], record, old and old[FLAGS] or 0)
  mark_torn(keys)
  write('HDEL', keys[DERIVING], args[7])
  write_all('HSET', keys[SESS], holds)
  write_all('ZADD', keys[LEASE], leases)
  write_signals(keys, out)
  write('HSET', keys[ACCT], args[7], pack_account(record))
  finish(keys, {})
  return {'applied', #out.list}
end

local function readable_account(packed)
  if #packed ~= struct.size(ACCOUNT_FORMAT) then
    return false
  end
  local record = unpack_account(packed)
  return string.match(record[CURRENCY], '^%u%u%u$') and whole_account(record) and record[STATUS] <= 2 and record
end

local function readable_unknown(packed)
  local decoded, unknown = pcall(cmsgpack.unpack, packed)
  return decoded and type(unknown) == 'table' and type(unknown[U_REASON]) == 'string' and whole(unknown[U_OFFSET], 0)
    and whole(unknown[U_SEEN], 0) and whole(unknown[U_FIRST], 0) and #unknown == U_FIRST
    and unknown
end

-- A record that another hand made unreadable stops its partition. In its place comes an empty one, of a balance that is
-- unknown until the owner has derived it; holds that cannot be read are forgotten. Anything else is left alone.
-- ARGV goes on after the incarnation: account
local function mend(keys, args)
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local account, at = args[5], state.usage_offset
  local packed, why = redis.call('HGET', keys[ACCT], account), redis.call('HGET', keys[DERIVING], account)
  local record, unknown = packed and readable_account(packed), why and readable_unknown(why)
  local held, lost = held_by(keys, account)
  local readable = (record or not packed) and (unknown or not why)
  if readable and #lost == 0 then
    return {'moved'}
  end
  local out, recounted = outbox(at, state.log_time), record and #lost > 0
  if recounted then
    record[HELD] = held
    if not why then
      watch(keys, out, account, record)
    end
  end
  mark_torn(keys)
  write_all('HDEL', keys[SESS], lost)
  write_all('ZREM', keys[LEASE], lost)
  if packed and not record then
    write('SREM', keys[ALERT], account)
    write('HSET', keys[ACCT], account, pack_account({'XXX', 0, 0, held, 0, false, 0, 0, -1, IS_OPEN, 0}))
  elseif recounted then
    write_signals(keys, out)
    write('HSET', keys[ACCT], account, pack_account(record))
  end
  if not readable and not unknown then
    write('HSET', keys[DERIVING], account, cmsgpack.pack({'deriving', at, record and record[SEQ] or 0, at}))
  end
  finish(keys, {})
  return {'applied'}
end
