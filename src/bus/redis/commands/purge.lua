-- Removes restrictions that have expired, `most` of them at most. Returns how many.
local function purge(restrictions, expiries, most)
  local now = string.format('%.0f', clock())
  local over = redis.call('ZRANGE', expiries, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
  if #over > 0 then
    redis.call('HDEL', restrictions, unpack(over))
    redis.call('ZREM', expiries, unpack(over))
  end
  return #over
end
