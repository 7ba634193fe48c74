-- Confirms the epoch in the present run of Redis.
-- KEYS meta, log
-- ARGV candidate epoch, run, ttl of keys, epoch to confirm, run in which it was compared
-- If that run is not the present one, the epoch stays unconfirmed.
local found = position(ARGV[1], ARGV[2])
if found[1] == ARGV[4] and ARGV[5] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'run', ARGV[2])
  found[4] = 1
end
keep(ARGV[3])
return found
