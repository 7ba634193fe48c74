-- KEYS meta, log; ARGV candidate epoch, run, life of keys, the epoch that is confirmed, the run in which it was compared. If that is not
-- the present one, it stays unconfirmed.
local found = stand(ARGV[1], ARGV[2])
if found[1] == ARGV[4] and ARGV[5] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'run', ARGV[2])
  found[4] = 1
end
live(ARGV[3])
return found
