-- Holds and charges. A packed batch is {accounts, currencies, sessions} and, as an argument of its own, the operations:
-- seven doubles each, which cost a third of a table of numbers: code, offset, account index, session index, amount,
-- elapsed, lease end. Currency '' is "not charged here".
local HOLD, CHARGE, PASS = 1, 2, 3
local OPERATION, STRIDE = '<ddddddd', 56
local MALFORMED = {'refused', 'malformed batch: operations'}

-- NaN compares as false, so every condition says what must be.
local function well_formed(code, session, amount, elapsed, lease_end)
  return code == PASS or (code == HOLD or code == CHARGE) and session
    and amount >= 0 and amount < SAFE and amount % 1 == 0 and elapsed >= 0 and elapsed < SAFE and elapsed % 1 == 0
    and lease_end >= 0 and lease_end < SAFE and lease_end % 1 == 0
end

-- `account` and `hold` are the packed records, by index, as the batch leaves them (false: none).
local function read_usage(keys, state, b, t)
  local visible
  b.account = read_all('HMGET', keys[ACCT], b.accounts)
  b.hold = read_all('HMGET', keys[SESS], b.sessions)
  b.unknown = {}
  if redis.call('HLEN', keys[DERIVING]) > 0 then
    for i, packed in ipairs(read_all('HMGET', keys[DERIVING], b.accounts)) do
      b.unknown[i] = packed and cmsgpack.unpack(packed) or nil
    end
  end
  b.current, visible = generation(state, t)
  b.settled = {}
  for _, slot in ipairs(visible) do
    for s, found in ipairs(read_all('SMISMEMBER', keys[DONE + slot], b.sessions)) do
      if found == 1 then
        b.settled[s] = true
      end
    end
  end
  b.changed, b.turned, b.changed_unknown, b.stray, b.done = {}, {}, {}, {}, {}
  b.placed, b.leases, b.released = {}, {}, {}
  b.duplicates, b.passed = 0, 0
end

-- The account's balance is unknown from here on: usage is passed, and derived from the ledger later.
local function lose(b, a, reason, offset)
  b.unknown[a] = {reason, offset + 1, unpack_account(b.account[a])[SEQ], offset}
  b.changed_unknown[a] = true
  b.passed = b.passed + 1
end

-- The account as it is from here on. Its members come one by one: a table for each account costs a tenth of the time.
local function keep(b, a, currency, credit, used, held, limit, below, excluded, seq, last, status, flags)
  b.account[a] = struct.pack(ACCOUNT_FORMAT, currency, credit, used, held, limit, below, excluded, seq, last, status,
    flags)
  b.changed[a] = true
  b.turned[a] = conditions(credit, used, held, limit, below, excluded, status) ~= flags
end

local function place(b, a, s, offset, amount, elapsed, lease_end)
  if b.settled[s] then
    return
  end
  local hold, before = b.hold[s], 0
  if hold then
    local old_elapsed, old_end
    before, old_elapsed, old_end = unpack_hold(hold)
    if not whole(before, 0) then
      return lose(b, a, 'unreadable', offset)
    elseif elapsed < old_elapsed then
      return
    elseif elapsed == old_elapsed then
      amount = before
    end
    if lease_end < old_end then
      lease_end = old_end
    end
  end
  if amount ~= before then
    local currency, credit, used, held, limit, below, excluded, seq, last, status, flags =
      struct.unpack(ACCOUNT_FORMAT, b.account[a])
    -- the difference first: held + amount could leave what a double holds exactly
    held = held + (amount - before)
    if not within(held) then
      return lose(b, a, 'overflow', offset)
    end
    keep(b, a, currency, credit, used, held, limit, below, excluded, seq, last, status, flags)
  end
  hold = pack_hold(amount, elapsed, lease_end)
  b.hold[s] = hold
  local session, n = b.sessions[s], #b.placed
  b.placed[n + 1], b.placed[n + 2] = session, hold
  b.leases[n + 1], b.leases[n + 2] = lease_end, session -- whole numbers are written as such
end

local function charge(b, a, s, offset, amount)
  if b.settled[s] then
    b.duplicates = b.duplicates + 1
    return
  end
  local hold = b.hold[s]
  local before = hold and unpack_hold(hold) or 0
  local currency, credit, used, held, limit, below, excluded, seq, last, status, flags =
    struct.unpack(ACCOUNT_FORMAT, b.account[a])
  if currency ~= b.currencies[a] then
    return lose(b, a, 'currency', offset)
  elseif not within(used + amount) then
    return lose(b, a, 'overflow', offset)
  elseif not whole(before, 0) then
    return lose(b, a, 'unreadable', offset)
  end
  if hold then
    held = held - before
    b.hold[s] = false
    b.released[#b.released + 1] = b.sessions[s]
  end
  if amount > 0 then
    last = offset
  end
  if amount > 0 or hold then
    keep(b, a, currency, credit, used + amount, held, limit, below, excluded, seq, last, status, flags)
  end
  b.settled[s] = true
  b.done[#b.done + 1] = b.sessions[s]
end

-- Work everything out in tables. Returns nil, or the answer where nothing may be written: a malformed operation, or a
-- topic that has to be caught up first.
local function compute_usage(b, from, to, caught_up)
  local ops, last = b.ops, from - 1
  if #ops % STRIDE ~= 0 or #b.currencies ~= #b.accounts then
    return MALFORMED
  end
  for at = 1, #ops, STRIDE do
    local code, offset, a, s, amount, elapsed, lease_end = struct.unpack(OPERATION, ops, at)
    if not (offset > last and offset < to and offset % 1 == 0 and b.accounts[a]
      and well_formed(code, b.sessions[s], amount, elapsed, lease_end)) then
      return MALFORMED
    end
    last = offset
    local unknown = b.unknown[a]
    if unknown then
      unknown[U_OFFSET] = offset + 1
      b.changed_unknown[a] = true
      b.passed = b.passed + 1
    elseif not b.account[a] then
      if code ~= PASS and not caught_up then
        return {'catch_up', 'entries'}
      end
      b.stray[a] = offset + 1
    elseif code == CHARGE then
      charge(b, a, s, offset, amount)
    elseif code == HOLD then
      place(b, a, s, offset, amount, elapsed, lease_end)
    elseif not caught_up then
      return {'catch_up', 'tariffs'}
    else -- usage of an account that we know was passed, because the catalogue does not list it
      lose(b, a, 'deriving', offset)
    end
  end
end

-- A hold that was placed and released in this batch goes as it came: removals are written last.
local function write_holds(keys, b)
  write_all('HSET', keys[SESS], b.placed)
  write_all('ZADD', keys[LEASE], b.leases)
  write_all('HDEL', keys[SESS], b.released)
  write_all('ZREM', keys[LEASE], b.released)
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
local function changed_accounts(keys, b, out)
  local set, n = {}, 0
  for a, account in ipairs(b.accounts) do
    if b.changed[a] then
      if b.turned[a] and not b.unknown[a] then
        local record = unpack_account(b.account[a])
        watch(keys, out, account, record)
        b.account[a] = pack_account(record)
      end
      set[n + 1], set[n + 2] = account, b.account[a]
      n = n + 2
    end
  end
  return set
end

local function usage(keys, args)
  local state, refusal = admit_batch(keys, args, 'usage')
  if not state then
    return refusal
  end
  local names = cmsgpack.unpack(args[12])
  local b = {accounts = names[1], currencies = names[2], sessions = names[3], ops = args[13]}
  local t = math.max(state.log_time, tonumber(args[10]))
  read_usage(keys, state, b, t)
  local answer = compute_usage(b, state.usage_offset, tonumber(args[8]), args[11] == '1')
  if answer then
    return answer
  end
  local out = outbox(tonumber(args[8]), t)
  local accounts = changed_accounts(keys, b, out)
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
