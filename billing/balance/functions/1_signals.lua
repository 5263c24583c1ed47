-- Signals: written in the same call as the balances, for the partition's owner to publish. What an account was told of
-- stays in its record (FLAGS), so only a change writes; ALERT is the set of accounts whose flags are not 0, for repeats.
local LOW, EXHAUSTED, SUSPENDED, OWED_RESTORED, OWED_RESUMED = 1, 2, 4, 8, 16
local S_LOW, S_EXHAUSTED, S_RESTORED, S_CUTOFF, S_EXPIRED, S_SUSPENDED, S_RESUMED = 1, 2, 3, 4, 5, 6, 7
local IS_OPEN, IS_SUSPENDED = 0, 1
local BACKLOG = 100000 -- unpublished signals beyond which only flags are kept: the repeats tell what is still true then

-- Which conditions hold. In this order the sums are exact, or beyond 2^53 on the right side.
local function conditions(credit, used, held, limit, below, excluded, status)
  local flags = 0
  if below ~= NONE and (excluded - used) + credit < below then
    flags = LOW
  end
  if (limit - used) + credit - held <= 0 then
    flags = flags + EXHAUSTED
  end
  if status == IS_SUSPENDED then
    flags = flags + SUSPENDED
  end
  return flags
end

local function conditions_of(r)
  return conditions(r[CREDIT], r[USED], r[HELD], r[LIMIT], r[BELOW] or NONE, r[EXCLUDED], r[STATUS])
end

local function bit(flags, value)
  return flags % (2 * value) >= value
end

local function bounded(x)
  return math.max(1 - SAFE, math.min(SAFE - 1, x))
end

-- The signals of one call, as of this usage position and log time.
local function outbox(position, log_time)
  return {position = position, log_time = log_time, list = {}, alert = {}, calm = {}}
end

-- Too many are unpublished: decided once per call.
local function full(keys, out)
  if out.full == nil then
    out.full = redis.call('XLEN', keys[SIG]) >= BACKLOG
  end
  return out.full
end

local function note(out, code, account, r, ...)
  local level = bounded((r[EXCLUDED] - r[USED]) + r[CREDIT])
  local available = bounded(r[CREDIT] - r[USED] - r[HELD])
  out.list[#out.list + 1] = cmsgpack.pack({code, account, r[CURRENCY], level, available, r[BELOW], r[LIMIT],
    out.position, out.log_time, ...})
end

-- Tell what holds now and did not before; a cutoff where something is held for an open session.
local function tell(out, account, record, flags, before)
  if bit(flags, LOW) and not bit(before, LOW) then
    note(out, S_LOW, account, record)
  end
  if bit(flags, EXHAUSTED) and not bit(before, EXHAUSTED) then
    note(out, S_EXHAUSTED, account, record)
    if record[HELD] > 0 then
      note(out, S_CUTOFF, account, record)
    end
  end
  if bit(flags, SUSPENDED) and not bit(before, SUSPENDED) then
    note(out, S_SUSPENDED, account, record)
  end
end

-- The record's flags become `flags`. With a full backlog nothing is written: what holds is told by the repeats, and
-- what has ended (restored, resumed) is owed until then.
local function turn(keys, out, account, record, flags)
  local told, silent = record[FLAGS], full(keys, out)
  local restored = flags % 4 == 0 and (told % 4 > 0 or bit(told, OWED_RESTORED))
  local resumed = record[STATUS] == IS_OPEN and (bit(told, SUSPENDED) or bit(told, OWED_RESUMED))
  if not silent then
    tell(out, account, record, flags, told)
  end
  if restored and silent then
    flags = flags + OWED_RESTORED
  elseif restored then
    note(out, S_RESTORED, account, record)
  end
  if resumed and silent then
    flags = flags + OWED_RESUMED
  elseif resumed then
    note(out, S_RESUMED, account, record)
  end
  record[FLAGS] = flags
  if flags == 0 then
    out.calm[#out.calm + 1] = account
  elseif told == 0 then
    out.alert[#out.alert + 1] = account
  end
end

-- To be called for every record that changed, unless its balance is unknown (R1).
local function watch(keys, out, account, record)
  local flags = conditions_of(record)
  if flags ~= record[FLAGS] then
    turn(keys, out, account, record, flags)
  end
end

local function write_signals(keys, out)
  for _, signal in ipairs(out.list) do
    write('XADD', keys[SIG], '*', 's', signal)
  end
  write_all('SADD', keys[ALERT], out.alert)
  write_all('SREM', keys[ALERT], out.calm)
end
