-- The write proof: a marker of the intent, written by the call that reads the balance, and read again elsewhere.
local MARKERS = 10000 -- kept per partition; one that is evicted fails its proof, no more

-- The account in one moment with the marker, or why there is no balance.
local function proven(keys, args, state)
  if args[6] ~= state.timeline then
    return refuse('timeline', state.timeline)
  end
  local unknown = redis.call('HGET', keys[DERIVING], args[5])
  if unknown then
    return refuse('unknown', unknown)
  end
  local record = redis.call('HGET', keys[ACCT], args[5])
  if not record then
    return refuse('no_account', '')
  end
  return record
end

local function prove(keys, args) -- ARGV goes on: account, timeline, marker
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local record, reason = proven(keys, args, state)
  if not record then
    return reason
  end
  write('HSET', keys[MARKER], args[5], args[7])
  local excess = redis.call('HLEN', keys[MARKER]) - MARKERS
  if excess > 0 then
    for _, account in ipairs(redis.call('HRANDFIELD', keys[MARKER], excess + 1)) do
      if account ~= args[5] then
        write('HDEL', keys[MARKER], account)
      end
    end
  end
  return {'proven', record, status(state), state.epoch, state.nonce, args[7]}
end

local function marked(keys, args) -- ARGV goes on: account, timeline
  local state, refusal = admit(keys, args)
  if not state then
    return refusal
  end
  local record, reason = proven(keys, args, state)
  if not record then
    return reason
  end
  return {'proven', record, status(state), state.epoch, state.nonce, redis.call('HGET', keys[MARKER], args[5])}
end
