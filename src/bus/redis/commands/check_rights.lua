-- Tries every command that the scripts call, and changes nothing that lasts.
-- KEYS a key, and the name of a channel, that are used for nothing else
-- Returns the names of the commands that the Redis user may not call.
local key, missing = KEYS[1], {}
local calls = {
  {'TIME'}, {'INFO', 'server'},
  {'HSET', key, 'f', 'v'}, {'HGET', key, 'f'}, {'HMGET', key, 'f'}, {'HGETALL', key}, {'HLEN', key}, {'HDEL', key, 'f'},
  {'SET', key, 'v', 'XX', 'GET'}, {'PEXPIRE', key, 1000}, {'DEL', key},
  {'ZADD', key, 'XX', 1, 'm'}, {'ZRANGE', key, 0, 0, 'BYSCORE'}, {'ZREM', key, 'm'}, {'ZCOUNT', key, 0, 0},
  {'XADD', key, 'NOMKSTREAM', '1-0', 'f', 'v'}, {'XTRIM', key, 'MINID', '1-0'}, {'XDEL', key, '1-0'},
  {'XRANGE', key, '-', '+', 'COUNT', 1}, {'XREVRANGE', key, '+', '-', 'COUNT', 1},
  {'HSCAN', key, '0'},
  {'PUBLISH', key, ''},
}
for _, call in ipairs(calls) do
  local reply = redis.pcall(unpack(call))
  local err = type(reply) == 'table' and reply.err or ''
  if string.find(err, 'ACL failure', 1, true) or string.find(err, 'The user executing the script', 1, true) then
    missing[#missing + 1] = string.lower(call[1])
  end
end
return missing
