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
  write('HSET', keys[META], 'halted', args[7])
  return {'halted', args[7]}
end

-- Release these sessions' holds in tables: returns the accounts' fields to write.
local function release(keys, sessions)
  local holds, names, freed, seen = read_all('HMGET', keys[SESS], sessions), {}, {}, {}
  for i, session in ipairs(sessions) do
    if holds[i] and not seen[session] then
      seen[session] = true
      local account = string.match(session, '^[^/]*/([^/]*)/')
      if not freed[account] then
        freed[account] = 0
        names[#names + 1] = account
      end
      freed[account] = freed[account] + cmsgpack.unpack(holds[i])[H_AMOUNT]
    end
  end
  local set = {}
  for i, packed in ipairs(read_all('HMGET', keys[ACCT], names)) do
    if packed then
      local record = cmsgpack.unpack(packed)
      record[HELD] = record[HELD] - freed[names[i]]
      set[#set + 1] = names[i]
      set[#set + 1] = cmsgpack.pack(record)
    end
  end
  return set
end

-- Expire leases that ended at or before log time, when the owner has just seen the log's end.
local function tend(keys, args) -- ARGV goes on: at the end (1 or 0), most expiries, most unknown accounts to name
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  local ended = {}
  if args[7] == '1' then
    ended = redis.call('ZRANGEBYSCORE', keys[LEASE], '-inf', text(state.log_time), 'LIMIT', '0', args[8])
  end
  if #ended > 0 then
    local set = release(keys, ended)
    mark_torn(keys)
    write_all('ZREM', keys[LEASE], ended)
    write_all('HDEL', keys[SESS], ended)
    write_all('HSET', keys[ACCT], set)
    finish(keys, {'expired', text(state.expired + #ended)})
  end
  local unknown = {}
  if redis.call('HLEN', keys[DERIVING]) > 0 then
    unknown = redis.call('HRANDFIELD', keys[DERIVING], args[9], 'WITHVALUES')
  end
  return {'tended', redis.call('ZCARD', keys[LEASE]), text(state.log_time), ended, unknown}
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

-- The ledger's record of an account takes the place of "unknown", if nothing has happened since it was asked for.
local function derive(keys, args) -- ARGV goes on: account, offset asked for, timeline, packed record without holds
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  local packed = redis.call('HGET', keys[DERIVING], args[7])
  local unknown = packed and cmsgpack.unpack(packed)
  local record = cmsgpack.unpack(args[10])
  for member = CREDIT, LAST do
    if member ~= BELOW and not whole(record[member], 1 - SAFE) then
      return {'refused', 'malformed snapshot'}
    end
  end
  if args[9] ~= state.timeline then
    return {'timeline'}
  elseif not unknown or text(unknown[U_OFFSET]) ~= args[8] then
    return {'moved'}
  elseif record[SEQ] < unknown[U_SEEN] then
    return {'lagging'}
  end
  local old = redis.call('HGET', keys[ACCT], args[7])
  record[HELD] = old and cmsgpack.unpack(old)[HELD] or 0
  mark_torn(keys)
  write('HDEL', keys[DERIVING], args[7])
  write('HSET', keys[ACCT], args[7], cmsgpack.pack(record))
  finish(keys, {})
  return {'applied'}
end
