-- What the owner does with signals: repeat what is still true, publish, trim what Kafka has acknowledged.

-- A page of the accounts that something is true of: told again. Returns the next cursor, '0' at the end.
local function remind(keys, args) -- ARGV goes on: cursor, count
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  local out = outbox(state.usage_offset, state.log_time)
  if full(keys, out) then
    return {'full'}
  end
  local page = redis.call('SSCAN', keys[ALERT], args[7], 'COUNT', args[8])
  local names, set = page[2], {}
  local unknown = read_all('HMGET', keys[DERIVING], names)
  for i, packed in ipairs(read_all('HMGET', keys[ACCT], names)) do
    if packed and not unknown[i] then
      local account, record = names[i], unpack_account(packed)
      local flags = record[FLAGS] % OWED_RESTORED
      tell(out, account, record, flags, 0)
      if flags ~= record[FLAGS] then -- something is owed, and there is room now
        turn(keys, out, account, record, flags)
        set[#set + 1] = account
        set[#set + 1] = pack_account(record)
      end
    end
  end
  if #out.list > 0 or #set > 0 then
    mark_torn(keys)
    write_signals(keys, out)
    write_all('HSET', keys[ACCT], set)
    finish(keys, {})
  end
  return {'reminded', page[1], #out.list}
end

-- Trim what lies before an id, then read the oldest that are left.
local function signals(keys, args) -- ARGV goes on: first id to keep or '', count
  local state, refusal = admit_owner(keys, args)
  if not state then
    return refusal
  end
  if args[7] ~= '' then
    mark_torn(keys)
    write('XTRIM', keys[SIG], 'MINID', '=', args[7])
    finish(keys, {})
  end
  return {'signals', state.timeline, redis.call('XLEN', keys[SIG]),
    redis.call('XRANGE', keys[SIG], '-', '+', 'COUNT', args[8])}
end

-- A page of the open sessions: those of the accounts asked for.
local function sessions(keys, args) -- ARGV goes on: cursor, count, accounts
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local wanted, found = {}, {}
  for i = 7, #args do
    wanted[args[i]] = true
  end
  local page = redis.call('HSCAN', keys[SESS], args[5], 'COUNT', args[6])
  for i = 1, #page[2], 2 do
    local session = page[2][i]
    local slash = string.find(session, '/', 3, true)
    if wanted[string.sub(session, 3, slash - 1)] then
      found[#found + 1] = session
    end
  end
  return {'sessions', state.timeline, page[1], found}
end
