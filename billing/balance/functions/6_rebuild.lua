-- A first state, and a rebuilt one. KEYS are those of the new incarnation; begin and publish are given the data keys
-- of older ones after them. ARGV: function version, partitions, generation length in ms, incarnation, epoch, nonce.
local KEYS_OF_ONE = 13

local function version_differs(args)
  return args[1] ~= VERSION and {'refused', 'function version is ' .. VERSION .. ', expected ' .. args[1]}
end

local function unlink(keys, first, last)
  for i = first, last do
    write('UNLINK', keys[i])
  end
end

-- Positions and meta of the new incarnation, then `ready`. ARGV goes on after the nonce: timeline, usage offset and
-- fingerprint, entries offset and fingerprint, log time in ms.
local function publish(keys, args)
  local t, generation_ms = tonumber(args[12]), tonumber(args[3])
  local fields = {'usage_offset', args[8], 'usage_fingerprint', args[9], 'entries_offset', args[10],
    'entries_fingerprint', args[11], 'log_time', args[12], 'floor', args[8], 'expired', '0', 'census', census(keys)}
  for n = math.floor(t / generation_ms), math.max(0, math.floor(t / generation_ms) - 2), -1 do
    fields[#fields + 1] = 'generation_' .. (n % 3)
    fields[#fields + 1] = text(n)
  end
  write('HSET', keys[POS], unpack(fields))
  write('HDEL', keys[META], 'torn', 'halted', 'halted_at')
  write('HSET', keys[META], 'version', args[1], 'partitions', args[2], 'generation_ms', args[3], 'timeline', args[7],
    'building', '', 'incarnation', args[4], 'state', 'ready')
end

local function publishable(args)
  return whole(tonumber(args[8]), 0) and whole(tonumber(args[10]), 0) and whole(tonumber(args[12]), 0)
    and whole(tonumber(args[3]), 1)
end

local function initialise(keys, args)
  local differs = version_differs(args)
  if differs then
    return differs
  elseif not publishable(args) then
    return {'refused', 'malformed position'}
  end
  local m = redis.call('HMGET', keys[META], 'incarnation', 'timeline', 'partitions', 'generation_ms', 'state')
  if m[5] and m[5] ~= 'initialising' then -- an unfinished attempt may be repeated
    return {'exists', m[1] or '', m[2] or '', m[3] or '', m[4] or '', m[5]}
  end
  write('HSET', keys[META], 'state', 'initialising', 'epoch', '0', 'nonce', '', 'version', args[1], 'partitions',
    args[2], 'generation_ms', args[3])
  unlink(keys, POS, KEYS_OF_ONE)
  publish(keys, args)
  return {'applied'}
end

-- Take the partition away from its owner and make every balance unknown. Fails when the incarnation is not new.
local function begin(keys, args) -- ARGV: …, incarnation, incarnation that KEYS 11 on belong to, nonce
  local differs = version_differs(args)
  if differs then
    return differs
  end
  local m = redis.call('HMGET', keys[META], 'incarnation', 'building', 'epoch')
  local newest = math.max(tonumber(m[1] or '') or 0, tonumber(m[2] or '') or 0)
  if tonumber(args[4]) <= newest then
    return {'stale', text(newest)}
  end
  local epoch = text(tonumber(m[3] or 0) + 1)
  write('HSET', keys[META], 'state', 'rebuilding', 'epoch', epoch, 'nonce', args[6], 'building', args[4], 'version',
    args[1], 'partitions', args[2], 'generation_ms', args[3])
  write('HDEL', keys[META], 'halted', 'halted_at')
  unlink(keys, POS, #keys)
  return {'begun', epoch}
end

local function building(keys, args)
  local differs = version_differs(args)
  if differs then
    return differs
  end
  local m = redis.call('HMGET', keys[META], 'state', 'epoch', 'nonce', 'building')
  if m[1] ~= 'rebuilding' or m[2] ~= args[5] or m[3] ~= args[6] or m[4] ~= args[4] then
    return {'fenced', ''}
  end
end

-- Their conditions hold from the start and are told by the first repeats: nothing is published of a store in the making.
local function fill_accounts(keys, list, usage_offset)
  local alert, calm, unknown = {}, {}, {}
  for i = 1, #list, 2 do
    local record = unpack_account(list[i + 1])
    record[FLAGS] = conditions_of(record)
    list[i + 1] = pack_account(record)
    if not whole_account(record) then
      unknown[#unknown + 1] = list[i]
      unknown[#unknown + 1] = cmsgpack.pack({'overflow', usage_offset, record[SEQ], usage_offset})
    end
    local names = record[FLAGS] > 0 and alert or calm
    names[#names + 1] = list[i]
  end
  write_all('SADD', keys[ALERT], alert)
  write_all('SREM', keys[ALERT], calm)
  write_all('HSET', keys[DERIVING], unknown)
  write_all('HSET', keys[ACCT], list)
end

-- Write one chunk; the same chunk twice is harmless. `what` is 'accounts' (pairs), 'holds' (session, packed hold,
-- lease end) or 'settled' (sessions, with their dedupe generation).
local function fill(keys, args) -- ARGV goes on: what, usage offset or dedupe generation, the list
  local refusal = building(keys, args)
  if refusal then
    return refusal
  end
  local list = {unpack(args, 9)}
  if args[7] == 'accounts' then
    fill_accounts(keys, list, tonumber(args[8]))
  elseif args[7] == 'settled' then
    write_all('SADD', keys[DONE + tonumber(args[8]) % 3], list)
  else
    local set, leases = {}, {}
    for i = 1, #list, 3 do
      set[#set + 1] = list[i]
      set[#set + 1] = list[i + 1]
      leases[#leases + 1] = list[i + 2]
      leases[#leases + 1] = list[i]
    end
    write_all('HSET', keys[SESS], set)
    write_all('ZADD', keys[LEASE], leases)
  end
  return {'applied'}
end

local function complete(keys, args)
  local refusal = building(keys, args)
  if refusal then
    local m = redis.call('HMGET', keys[META], 'state', 'incarnation')
    local done = m[1] == 'ready' and m[2] == args[4] -- repeated after a lost reply
    return done and {'applied'} or refusal
  elseif not publishable(args) then
    return {'refused', 'malformed position'}
  end
  publish(keys, args)
  unlink(keys, KEYS_OF_ONE + 1, #keys)
  return {'applied'}
end
