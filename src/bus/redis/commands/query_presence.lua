-- Returns the sets of all nodes in a room, and removes those of dead nodes.
-- KEYS nodes, own set
-- ARGV ttl of keys, node, max users, number of known nodes, a known node and its version …, a
-- dead node and the version to remove …
-- Returns the version and size of the own set, and name, version and users of each other node.
-- Users are omitted if the version is known, or if there would be too many.
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
local on = string.sub(KEYS[1], 1, -6) .. 'on:'
local known, at = {}, 5
for i = 1, tonumber(ARGV[4]) do
  known[ARGV[at]] = ARGV[at + 1]
  at = at + 2
end
while at < #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('DEL', on .. ARGV[at])
  end
  at = at + 2
end
local nodes, most, total = redis.call('HGETALL', KEYS[1]), tonumber(ARGV[3]), 0
local found = {false, redis.call('HLEN', KEYS[2])}
for i = 1, #nodes, 2 do
  local node, version = nodes[i], nodes[i + 1]
  if node == ARGV[2] then
    found[1] = version
  else
    local users = false
    if known[node] ~= version then
      local count = redis.call('HLEN', on .. node)
      if total == 0 or total + count <= most then
        users = redis.call('HGETALL', on .. node)
        total = total + math.max(count, 1)
      end
    end
    found[#found + 1] = {node, version, users}
  end
end
return found
