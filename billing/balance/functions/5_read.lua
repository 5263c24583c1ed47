-- Reads, each one step: a balance never comes with another moment's positions.

local function status(state)
  return {text(state.usage_offset), state.usage_fingerprint, text(state.entries_offset),
    state.entries_fingerprint, text(state.log_time), text(state.expired)}
end

local function read(keys, args) -- ARGV goes on: account
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local unknown = redis.call('HGET', keys[DERIVING], args[5])
  if unknown then
    return {'unknown', state.timeline, unknown}
  end
  local record = redis.call('HGET', keys[ACCT], args[5])
  if record then
    return {'known', state.timeline, record, status(state)}
  end
  return {'no_account', state.timeline}
end

-- Some accounts, in the order asked for: their records, and what is unknown of them.
local function read_many(keys, args) -- ARGV goes on: accounts
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local names = {}
  for i = 5, #args do
    names[#names + 1] = args[i]
  end
  return {'accounts', state.timeline, status(state), read_all('HMGET', keys[ACCT], names),
    read_all('HMGET', keys[DERIVING], names)}
end

-- A page of all accounts, or of those whose balance is unknown: names, records, and what is unknown of them.
local function scan(keys, args) -- ARGV goes on: 'accounts' or 'unknown', cursor, count
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local accounts = args[5] == 'accounts'
  local page = redis.call('HSCAN', keys[accounts and ACCT or DERIVING], args[6], 'COUNT', args[7])
  local names, values = {}, {}
  for i = 1, #page[2], 2 do
    names[#names + 1] = page[2][i]
    values[#values + 1] = page[2][i + 1]
  end
  local others = read_all('HMGET', keys[accounts and DERIVING or ACCT], names)
  local records, unknown = accounts and values or others, accounts and others or values
  return {'page', state.timeline, page[1], status(state), names, records, unknown}
end

-- The sessions of a page of holds that cannot be read.
local function unreadable(keys, args) -- ARGV goes on: cursor, count
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local page, sessions = redis.call('HSCAN', keys[SESS], args[5], 'COUNT', args[6]), {}
  for i = 1, #page[2], 2 do
    if not readable_hold(page[2][i + 1]) then
      sessions[#sessions + 1] = page[2][i]
    end
  end
  return {'page', state.timeline, page[1], sessions}
end

local function partition(keys, args)
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  return {'partition', state.timeline, status(state), redis.call('HLEN', keys[ACCT]), redis.call('ZCARD', keys[LEASE]),
    redis.call('HLEN', keys[DERIVING]), redis.call('ZCARD', keys[STRAY])}
end
