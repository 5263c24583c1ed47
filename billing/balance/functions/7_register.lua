-- Names are prefixed with the library's, so that a test build can stand beside the real one.
local function register(name, callback, flags)
  redis.register_function{function_name = LIBRARY .. '_' .. name, callback = callback, flags = flags or {}}
end

register('usage', usage)
register('entries', entries)
register('claim', claim)
register('halt', halt)
register('tend', tend)
register('settled', settled)
register('derive', derive)
register('initialise', initialise)
register('begin', begin)
register('fill', fill)
register('complete', complete)
register('read', read, {'no-writes'})
register('read_many', read_many, {'no-writes'})
register('scan', scan, {'no-writes'})
register('partition', partition, {'no-writes'})
