-- Changes the set of a node and publishes the changes. A repeated call does nothing more.
-- KEYS nodes, own set
-- ARGV ttl of keys, node, base ('' for a whole set), version, changes, whether to publish them
-- Returns 0 if Redis does not have the base.
local had = redis.call('HGET', KEYS[1], ARGV[2])
if had ~= ARGV[4] then
  if ARGV[3] == '' then
    redis.call('DEL', KEYS[2])
  elseif had ~= ARGV[3] then
    return 0
  end
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
  for _, change in ipairs(cjson.decode(ARGV[5])) do
    if change[2] == cjson.null then
      redis.call('HDEL', KEYS[2], change[1])
    else
      redis.call('HSET', KEYS[2], change[1], change[2])
    end
  end
  local base = ARGV[3] == '' and '=' or ARGV[3]
  local changes = ARGV[6] == '1' and ARGV[5] or ''
  redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), '@' .. ARGV[2] .. ' ' .. base .. ' ' .. ARGV[4] .. ' ' .. changes)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
