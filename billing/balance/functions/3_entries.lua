-- Entries of the ledger. A packed batch is {accounts, timelines, ops}; an op is
-- {OPENED, account index, ledger_seq, currency, opening offset, credit, limit, recharge below or false, status},
-- {CHANGED, …, limit, recharge below or false, status}, {POSTED, …, amount, currency}, {ACKNOWLEDGED, …} or
-- {CORRECTED, …}: the view was wrong, the account is derived anew from the ledger.
local OPENED, CHANGED, POSTED, ACKNOWLEDGED, CORRECTED = 1, 2, 3, 4, 5

local function terms(limit, below, status)
  return whole(limit, 0) and (below == false or whole(below, 1 - SAFE)) and whole(status, 0)
end

local function entry_ok(op, accounts)
  if not whole(op[2], 1) or op[2] > accounts or not whole(op[3], 1) then
    return false
  elseif op[1] == OPENED then
    return op[3] == 1 and type(op[4]) == 'string' and whole(op[5], 0) and whole(op[6], 1 - SAFE)
      and terms(op[7], op[8], op[9])
  elseif op[1] == CHANGED then
    return terms(op[4], op[5], op[6])
  elseif op[1] == POSTED then
    return whole(op[4], 1 - SAFE) and type(op[5]) == 'string'
  end
  return op[1] == ACKNOWLEDGED or op[1] == CORRECTED
end

-- From here on the balance is unknown; all usage below the usage position was applied or passed.
local function lose_entry(b, state, a, reason, seen)
  b.unknown[a] = {reason, state.usage_offset, seen, state.usage_offset}
  b.changed_unknown[a] = true
end

-- A new account. It is known at once unless usage of it was passed before this entry came.
local function open(b, state, a, op)
  local stray, opened_at = tonumber(b.stray[a] or 0), op[5]
  if b.stray[a] then
    b.gone[#b.gone + 1] = b.accounts[a]
    b.stray[a] = false
  end
  if stray > opened_at or state.floor > opened_at then
    b.unknown[a] = {'deriving', math.max(stray, state.floor), op[3], opened_at}
    b.changed_unknown[a] = true
    return
  end
  b.record[a] = {op[4], op[6], 0, 0, op[7], op[8], 0, op[3], -1, op[9], 0}
  b.changed[a] = true
end

local function post(b, state, a, op)
  local record, amount = b.record[a], op[4]
  local excluded = record[EXCLUDED] + math.max(0, -amount)
  if record[CURRENCY] ~= op[5] then
    return lose_entry(b, state, a, 'currency', op[3])
  elseif not within(record[CREDIT] + amount) or not within(excluded) then
    return lose_entry(b, state, a, 'overflow', op[3])
  end
  record[CREDIT], record[EXCLUDED], record[SEQ] = record[CREDIT] + amount, excluded, op[3]
  b.changed[a] = true
end

local function take_entry(b, state, op)
  local code, a, seq = op[1], op[2], op[3]
  local unknown, record = b.unknown[a], b.record[a]
  if unknown then
    if seq > unknown[U_SEEN] then
      unknown[U_SEEN] = seq
      b.changed_unknown[a] = true
    end
  elseif not record then
    if code == OPENED then
      open(b, state, a, op)
    else
      lose_entry(b, state, a, 'gap', seq)
    end
  elseif seq > record[SEQ] + 1 then
    lose_entry(b, state, a, 'gap', seq)
  elseif seq == record[SEQ] + 1 then
    if code == POSTED then
      return post(b, state, a, op)
    elseif code == CORRECTED then
      return lose_entry(b, state, a, 'correcting', seq)
    elseif code == CHANGED then
      record[LIMIT], record[BELOW], record[STATUS] = op[4], op[5], op[6]
    else
      record[EXCLUDED] = 0
    end
    record[SEQ] = seq
    b.changed[a] = true
  end
end

local function read_entries(keys, b)
  b.record, b.unknown, b.changed, b.changed_unknown, b.gone = {}, {}, {}, {}, {}
  for i, packed in ipairs(read_all('HMGET', keys[ACCT], b.accounts)) do
    b.record[i] = packed and unpack_account(packed) or nil
  end
  for i, packed in ipairs(read_all('HMGET', keys[DERIVING], b.accounts)) do
    b.unknown[i] = packed and cmsgpack.unpack(packed) or nil
  end
  b.stray = read_all('ZMSCORE', keys[STRAY], b.accounts)
end

-- As changed_accounts does, of records in tables: entries are few, and change them member by member.
local function pack_changed(keys, b, out)
  local set = {}
  for a in pairs(b.changed) do
    if not b.unknown[a] then
      watch(keys, out, b.accounts[a], b.record[a])
    end
    set[#set + 1] = b.accounts[a]
    set[#set + 1] = pack_account(b.record[a])
  end
  return set
end

-- Since when is for people; nothing is decided by it.
local function set_halted(keys, reason)
  write('HSET', keys[META], 'halted', reason, 'halted_at', redis.call('TIME')[1])
end

local function entries(keys, args)
  local state, refusal = admit_batch(keys, args, 'entries')
  if not state then
    return refusal
  end
  local packed = cmsgpack.unpack(args[12])
  local b = {accounts = packed[1], timelines = packed[2], ops = packed[3]}
  for _, op in ipairs(b.ops) do
    if not entry_ok(op, #b.accounts) then
      return {'refused', 'malformed batch: entries'}
    end
  end
  for _, timeline in ipairs(b.timelines) do
    if timeline ~= state.timeline then
      local reason = 'timeline: the store has ' .. state.timeline .. ', an entry ' .. timeline
      set_halted(keys, reason)
      return {'halted', reason}
    end
  end
  read_entries(keys, b)
  for _, op in ipairs(b.ops) do
    take_entry(b, state, op)
  end
  local out = outbox(state.usage_offset, state.log_time)
  local accounts = pack_changed(keys, b, out)
  mark_torn(keys)
  write_all('ZREM', keys[STRAY], b.gone)
  write_unknown(keys, b)
  write_signals(keys, out)
  write_all('HSET', keys[ACCT], accounts)
  finish(keys, {'entries_offset', args[8], 'entries_fingerprint', args[9]})
  return {'applied', #out.list}
end
