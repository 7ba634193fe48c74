-- Stores the heartbeat of a node, and returns those of all nodes.
-- KEYS all nodes
-- ARGV ttl of the key, node, its heartbeat or '', its last heartbeat, then a node to remove and
-- the heartbeat it must still have …
-- Returns whether the last heartbeat was found, and all heartbeats. If it was not found, a mark
-- is kept with the new one, so that a repeated call gives the same answer.
for i = 5, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
local had = redis.call('HGET', KEYS[1], ARGV[2]) or ''
local is_remembered = had == ARGV[4]
if ARGV[3] ~= '' then
  local surprised = ARGV[3] .. ' !'
  if had ~= ARGV[3] and had ~= surprised then
    had = is_remembered and ARGV[3] or surprised
    redis.call('HSET', KEYS[1], ARGV[2], had)
  end
  is_remembered = had == ARGV[3]
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local all, found = redis.call('HGETALL', KEYS[1]), {is_remembered and 1 or 0}
for i = 1, #all do found[i + 1] = all[i] end
return found
