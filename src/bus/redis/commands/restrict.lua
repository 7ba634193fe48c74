-- Publishes a control message and makes the change of the restrictions that it is about, unless
-- its id is known.
-- KEYS as in publish.lua, then restrictions, expiries
-- ARGV as in publish.lua, then the key of the restriction, '1' to keep it, its expiry ('' for none),
-- max restrictions
-- Returns what publish.lua does, or `full`.
--
-- A repeated call changes nothing: another change may have come since. A script that has written
-- is not refused memory, so the change cannot fail after the message was published.
local is_kept = ARGV[8] == '1'
purge(KEYS[4], KEYS[5], 100)
if is_kept and not redis.call('HGET', KEYS[4], ARGV[7]) and redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[10]) then
  return 'full'
end
local published = publish()
if type(published) == 'table' or string.sub(published, -6) == ' known' then return published end
if is_kept then
  redis.call('HSET', KEYS[4], ARGV[7], ARGV[2])
else
  redis.call('HDEL', KEYS[4], ARGV[7])
end
if is_kept and ARGV[9] ~= '' then
  redis.call('ZADD', KEYS[5], ARGV[9], ARGV[7])
else
  redis.call('ZREM', KEYS[5], ARGV[7])
end
return published
