-- Holds and charges. A packed batch is {accounts, currencies, sessions, ops}; ops is flat, seven numbers each:
-- code, offset, account index, session index, amount, elapsed, lease end. Currency '' is "not charged here".
local HOLD, CHARGE, PASS = 1, 2, 3
local STRIDE = 7

-- Raises for anything but numbers among the operations: comparing a string or a table with a number does. NaN compares
-- as false, so every condition says what must be.
local function well_formed(b, from, to)
  local ops, accounts, sessions, last = b.ops, #b.accounts, #b.sessions, from - 1
  if #ops % STRIDE ~= 0 or #b.currencies ~= accounts then
    return false
  end
  for i = 1, #ops, STRIDE do
    local code, offset, account, session = ops[i], ops[i + 1], ops[i + 2], ops[i + 3]
    local amount, elapsed, lease_end = ops[i + 4], ops[i + 5], ops[i + 6]
    if not (offset > last and offset < to and offset % 1 == 0 and account >= 1 and account <= accounts
      and account % 1 == 0) then
      return false
    elseif code == HOLD or code == CHARGE then
      if not (session >= 1 and session <= sessions and session % 1 == 0 and amount >= 0 and amount < SAFE
        and amount % 1 == 0 and elapsed >= 0 and elapsed < SAFE and elapsed % 1 == 0 and lease_end >= 0
        and lease_end < SAFE and lease_end % 1 == 0) then
        return false
      end
    elseif code ~= PASS then
      return false
    end
    last = offset
  end
  return true
end

local function read_usage(keys, state, b, t)
  local visible
  b.raw = read_all('HMGET', keys[ACCT], b.accounts)
  b.raw_hold = read_all('HMGET', keys[SESS], b.sessions)
  b.record, b.hold, b.unknown = {}, {}, {}
  if redis.call('HLEN', keys[DERIVING]) > 0 then
    for i, packed in ipairs(read_all('HMGET', keys[DERIVING], b.accounts)) do
      b.unknown[i] = packed and cmsgpack.unpack(packed) or nil
    end
  end
  b.current, visible = generation(state, t)
  b.settled = {}
  for _, slot in ipairs(visible) do
    for i, found in ipairs(read_all('SMISMEMBER', keys[DONE + slot], b.sessions)) do
      if found == 1 then
        b.settled[i] = true
      end
    end
  end
  b.changed, b.lease_end, b.changed_unknown, b.stray, b.done = {}, {}, {}, {}, {}
  b.duplicates, b.passed = 0, 0
end

-- The account's balance is unknown from here on: usage is passed, and derived from the ledger later.
local function lose(b, a, reason, offset)
  b.unknown[a] = {reason, offset + 1, b.record[a][SEQ], offset}
  b.changed_unknown[a] = true
  b.passed = b.passed + 1
end

-- The packed hold as this batch has left it, or false.
local function hold_of(b, s)
  local hold = b.hold[s]
  if hold == nil then
    return b.raw_hold[s]
  end
  return hold
end

local function place(b, a, s, offset, amount, elapsed, lease_end)
  if b.settled[s] then
    return
  end
  local record, hold, before = b.record[a], hold_of(b, s), 0
  if hold then
    local old_elapsed, old_end
    before, old_elapsed, old_end = unpack_hold(hold)
    if elapsed < old_elapsed then
      return
    elseif elapsed == old_elapsed then
      amount = before
    end
    lease_end = math.max(lease_end, old_end)
  end
  -- the difference first: held + amount could leave what a double holds exactly
  local held = record[HELD] + (amount - before)
  if not within(held) then
    return lose(b, a, 'overflow', offset)
  end
  if held ~= record[HELD] then
    record[HELD] = held
    b.changed[a] = true
  end
  b.hold[s] = pack_hold(amount, elapsed, lease_end)
  b.lease_end[s] = lease_end
end

local function charge(b, a, s, offset, amount)
  if b.settled[s] then
    b.duplicates = b.duplicates + 1
    return
  end
  local record, hold = b.record[a], hold_of(b, s)
  if record[CURRENCY] ~= b.currencies[a] then
    return lose(b, a, 'currency', offset)
  elseif not within(record[USED] + amount) then
    return lose(b, a, 'overflow', offset)
  end
  record[USED] = record[USED] + amount
  if amount > 0 then
    record[LAST] = offset
  end
  if hold then
    record[HELD] = record[HELD] - unpack_hold(hold)
    b.hold[s] = false
  end
  if amount > 0 or hold then
    b.changed[a] = true
  end
  b.settled[s] = true
  b.done[#b.done + 1] = b.sessions[s]
end

-- Work everything out in tables. Returns the topic that has to be caught up first, or nil.
local function compute_usage(b, caught_up)
  local ops = b.ops
  for i = 1, #ops, STRIDE do
    local code, offset, a = ops[i], ops[i + 1], ops[i + 2]
    local unknown, record = b.unknown[a], b.record[a]
    if unknown then
      unknown[U_OFFSET] = offset + 1
      b.changed_unknown[a] = true
      b.passed = b.passed + 1
    elseif not b.raw[a] then
      if code ~= PASS and not caught_up then
        return 'entries'
      end
      b.stray[a] = offset + 1
    else
      if not record then
        record = unpack_account(b.raw[a])
        b.record[a] = record
      end
      if code == CHARGE then
        charge(b, a, ops[i + 3], offset, ops[i + 4])
      elseif code == HOLD then
        place(b, a, ops[i + 3], offset, ops[i + 4], ops[i + 5], ops[i + 6])
      elseif not caught_up then
        return 'tariffs'
      else -- usage of an account that we know was passed, because the catalogue does not list it
        lose(b, a, 'deriving', offset)
      end
    end
  end
end

local function write_holds(keys, b)
  local set, leases, gone, n = {}, {}, {}, 0
  for s, hold in pairs(b.hold) do
    local session = b.sessions[s]
    if hold then
      set[n + 1], set[n + 2] = session, hold
      leases[n + 1], leases[n + 2] = b.lease_end[s], session -- whole numbers are written as such
      n = n + 2
    elseif b.raw_hold[s] then
      gone[#gone + 1] = session
    end
  end
  write_all('HSET', keys[SESS], set)
  write_all('ZADD', keys[LEASE], leases)
  write_all('HDEL', keys[SESS], gone)
  write_all('ZREM', keys[LEASE], gone)
end

-- Returns the floor: an account opened below it may have had usage passed that is no longer remembered.
local function write_strays(keys, b, floor)
  local set = {}
  for a, offset in pairs(b.stray) do
    set[#set + 1] = text(offset)
    set[#set + 1] = b.accounts[a]
  end
  if #set == 0 then
    return floor
  end
  write_all('ZADD', keys[STRAY], set)
  local excess = redis.call('ZCARD', keys[STRAY]) - STRAYS
  if excess > 0 then
    local evicted = write('ZPOPMIN', keys[STRAY], excess)
    floor = math.max(floor, tonumber(evicted[#evicted]))
  end
  return floor
end

local function write_unknown(keys, b)
  local set = {}
  for a in pairs(b.changed_unknown) do
    set[#set + 1] = b.accounts[a]
    set[#set + 1] = cmsgpack.pack(b.unknown[a])
  end
  write_all('HSET', keys[DERIVING], set)
end

-- Fields of the accounts that changed, with their flags up to date; nothing is signalled where a balance is unknown.
local function pack_accounts(keys, b, out)
  local set, n = {}, 0
  for a in pairs(b.changed) do
    local record = b.record[a]
    if not b.unknown[a] then
      local flags = conditions(record)
      if flags ~= record[FLAGS] then
        turn(keys, out, b.accounts[a], record, flags)
      end
    end
    set[n + 1] = b.accounts[a]
    set[n + 2] = pack_account(record)
    n = n + 2
  end
  return set
end

local function usage(keys, args)
  local state, refusal = admit_batch(keys, args, 'usage')
  if not state then
    return refusal
  end
  local packed, b = cmsgpack.unpack(args[12]), nil
  b = {accounts = packed[1], currencies = packed[2], sessions = packed[3], ops = packed[4]}
  local readable, good = pcall(well_formed, b, state.usage_offset, tonumber(args[8]))
  if not (readable and good) then
    return {'refused', 'malformed batch: operations'}
  end
  local t = math.max(state.log_time, tonumber(args[10]))
  read_usage(keys, state, b, t)
  local topic = compute_usage(b, args[11] == '1')
  if topic then
    return {'catch_up', topic}
  end
  local out = outbox(tonumber(args[8]), t)
  local accounts = pack_accounts(keys, b, out)
  local fields = {'usage_offset', args[8], 'usage_fingerprint', args[9], 'log_time', text(t)}
  mark_torn(keys)
  settle(keys, state, b.current, b.done, fields)
  write_holds(keys, b)
  local floor = write_strays(keys, b, state.floor)
  fields[#fields + 1] = 'floor'
  fields[#fields + 1] = text(floor)
  write_unknown(keys, b)
  write_signals(keys, out)
  write_all('HSET', keys[ACCT], accounts)
  finish(keys, fields)
  return {'applied', #out.list, #b.done, b.duplicates, b.passed, floor > state.floor and 1 or 0}
end
