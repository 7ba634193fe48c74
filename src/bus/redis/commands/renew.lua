-- Ends an epoch, and tells all nodes by a message without a body.
-- KEYS meta, log
-- ARGV candidate epoch, run, ttl of keys, epoch to end
local found = position(ARGV[1], ARGV[2])
if found[1] == ARGV[4] then renew(found, ARGV[1], ARGV[2]) end
keep(ARGV[3])
return found
