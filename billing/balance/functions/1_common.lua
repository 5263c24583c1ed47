-- Helpers of every function. The keys of a call, all of one partition and in this order:
local META, POS, ACCT, SESS, LEASE, STRAY, DERIVING, DONE = 1, 2, 3, 4, 5, 6, 7, 8 -- DONE is three keys
local ALERT, SIG, MARKER = 11, 12, 13
-- Members of a packed account record.
local CURRENCY, CREDIT, USED, HELD, LIMIT, BELOW, EXCLUDED, SEQ, LAST, STATUS, FLAGS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
-- Members of what is kept of an account whose balance is unknown.
local U_REASON, U_OFFSET, U_SEEN, U_FIRST = 1, 2, 3, 4 -- usage from FIRST to below OFFSET was passed

local SAFE = 9007199254740992 -- 2^53: every integer is smaller in size, because Lua numbers are doubles
local CHUNK = 1000            -- arguments of one command
local STRAYS = 10000          -- strays kept per partition

-- The only way to change a key; a test build makes it fail after a number of calls.
local function write(...)
  return redis.call(...)
end

-- Records are packed as structs of doubles, which hold each integer within 2^53 exactly: half the time of msgpack.
-- NONE stands for "no threshold".
local ACCOUNT_FORMAT, HOLD_FORMAT = '<c3ddddddddBB', '<ddd'
local HOLD_SIZE, NAN = 24, 0 / 0
local NONE = -9007199254740992

local function unpack_account(packed)
  local record = {struct.unpack(ACCOUNT_FORMAT, packed)}
  if record[BELOW] == NONE then
    record[BELOW] = false
  end
  return record
end

local function pack_account(r)
  return struct.pack(ACCOUNT_FORMAT, r[CURRENCY], r[CREDIT], r[USED], r[HELD], r[LIMIT], r[BELOW] or NONE, r[EXCLUDED],
    r[SEQ], r[LAST], r[STATUS], r[FLAGS])
end

-- Amount, elapsed, end of the lease. An amount that is no whole number (`whole`) was written by another hand.
local function unpack_hold(packed)
  if #packed ~= HOLD_SIZE then
    return NAN, 0, 0
  end
  return struct.unpack(HOLD_FORMAT, packed)
end

local function pack_hold(amount, elapsed, lease_end)
  return struct.pack(HOLD_FORMAT, amount, elapsed, lease_end)
end

local function text(integer)
  return string.format('%.0f', integer)
end

local function within(x)
  return x < SAFE and x > -SAFE
end

-- A whole number, low <= x < 2^53; refuses NaN too.
local function whole(x, low)
  return type(x) == 'number' and x >= low and x < SAFE and x % 1 == 0
end

-- Whether a record's amounts, sequence and offset are whole numbers within 2^53 (R10); a threshold may be missing.
local function whole_account(record)
  for member = CREDIT, LAST do
    if not whole(record[member], 1 - SAFE) and not (member == BELOW and record[BELOW] == false) then
      return false
    end
  end
  return true
end

-- A read of many fields, in as many commands as needed.
local function read_all(command, key, fields)
  local n = #fields
  if n == 0 then
    return {}
  elseif n <= CHUNK then
    return redis.call(command, key, unpack(fields))
  end
  local values = {}
  for first = 1, n, CHUNK do
    local last = math.min(first + CHUNK - 1, n)
    local part = redis.call(command, key, unpack(fields, first, last))
    for i = 1, last - first + 1 do
      values[first + i - 1] = part[i]
    end
  end
  return values
end

-- A write of many arguments; CHUNK is even, so field-value pairs stay together.
local function write_all(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    write(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end

-- Sizes of all data keys: kept in POS, so that a key that was lost (evicted, deleted) is noticed. MARKER is left out:
-- without it a proof is refused, no more.
local function census(keys)
  return string.format('%d %d %d %d %d %d %d %d %d %d', redis.call('HLEN', keys[ACCT]), redis.call('HLEN', keys[SESS]),
    redis.call('ZCARD', keys[LEASE]), redis.call('ZCARD', keys[STRAY]), redis.call('HLEN', keys[DERIVING]),
    redis.call('SCARD', keys[DONE]), redis.call('SCARD', keys[DONE + 1]), redis.call('SCARD', keys[DONE + 2]),
    redis.call('SCARD', keys[ALERT]), redis.call('XLEN', keys[SIG]))
end

-- Set by the first write of a call, cleared by the last: a half-done call leaves it behind.
local function mark_torn(keys)
  write('HSET', keys[META], 'torn', '1')
end

-- The last writes: positions beside the new census, then the mark goes.
local function finish(keys, fields)
  fields[#fields + 1] = 'census'
  fields[#fields + 1] = census(keys)
  write('HSET', keys[POS], unpack(fields))
  write('HDEL', keys[META], 'torn')
end

local function refuse(answer, reason)
  return nil, {answer, reason}
end

-- Build and store fit? ARGV: function version, partitions, generation length in ms, incarnation.
local function admit(keys, args)
  if args[1] ~= VERSION then
    return refuse('refused', 'function version is ' .. VERSION .. ', expected ' .. args[1])
  end
  local m = redis.call('HMGET', keys[META], 'state', 'version', 'partitions', 'generation_ms', 'halted', 'torn',
    'incarnation', 'timeline', 'epoch', 'nonce')
  if not m[1] then
    return refuse('uninitialised', 'empty')
  elseif m[2] ~= VERSION then
    return refuse('refused', 'the store was written by function version ' .. m[2] .. ', this is ' .. VERSION)
  elseif m[3] ~= args[2] then
    return refuse('refused', 'the store has ' .. m[3] .. ' partitions, expected ' .. args[2])
  elseif m[4] ~= args[3] then
    return refuse('refused', 'the store has dedupe generations of ' .. m[4] .. ' ms, expected ' .. args[3])
  elseif m[5] then
    return refuse('halted', m[5])
  elseif m[1] ~= 'ready' then
    return refuse('uninitialised', m[1])
  elseif m[6] then
    return refuse('uninitialised', 'torn')
  elseif m[7] ~= args[4] then
    return refuse('uninitialised', 'incarnation')
  end
  local p = redis.call('HMGET', keys[POS], 'usage_offset', 'usage_fingerprint', 'entries_offset',
    'entries_fingerprint', 'log_time', 'floor', 'generation_0', 'generation_1', 'generation_2', 'census', 'expired')
  if not p[1] or p[10] ~= census(keys) then
    return refuse('uninitialised', 'lost')
  end
  return {timeline = m[8], epoch = m[9], nonce = m[10], generation_ms = tonumber(m[4]),
    usage_offset = tonumber(p[1]), usage_fingerprint = p[2], entries_offset = tonumber(p[3]),
    entries_fingerprint = p[4], log_time = tonumber(p[5]), floor = tonumber(p[6]),
    generations = {tonumber(p[7]), tonumber(p[8]), tonumber(p[9])}, expired = tonumber(p[11])}
end

-- The same for the partition's owner. ARGV goes on: epoch, nonce.
local function admit_owner(keys, args)
  local state, refusal = admit(keys, args)
  if state and (state.epoch ~= args[5] or state.nonce ~= args[6]) then
    return refuse('fenced', '')
  end
  return state, refusal
end

-- The same for a batch of `topic`. ARGV goes on: from, to, fingerprint, log time in ms, caught up, packed batch (of
-- usage two arguments).
local function admit_batch(keys, args, topic)
  local state, refusal = admit_owner(keys, args)
  if not state then
    return nil, refusal
  end
  local from, to, log_time = tonumber(args[7]), tonumber(args[8]), tonumber(args[10])
  if not whole(from, 0) or not whole(to, from + 1) or not whole(log_time, 0) then
    return refuse('refused', 'malformed batch: offsets or log time')
  elseif from ~= state[topic .. '_offset'] then
    return nil, {'behind', text(state[topic .. '_offset']), state[topic .. '_fingerprint']}
  end
  return state
end

-- Slot (0 to 2) of the dedupe generation of log time `t`, and the slots whose sessions it still sees.
local function generation(state, t)
  local current, visible = math.floor(t / state.generation_ms), {}
  for slot = 0, 2 do
    local stored = state.generations[slot + 1]
    if stored and stored <= current and stored >= current - 2 then
      visible[#visible + 1] = slot
    end
  end
  return current, visible
end

-- Add settled sessions to the generation of `current`, emptying its slot when it holds an older one.
local function settle(keys, state, current, sessions, fields)
  if #sessions == 0 then
    return
  end
  local slot = current % 3
  if state.generations[slot + 1] ~= current then
    write('UNLINK', keys[DONE + slot])
    fields[#fields + 1] = 'generation_' .. slot
    fields[#fields + 1] = text(current)
  end
  write_all('SADD', keys[DONE + slot], sessions)
end
