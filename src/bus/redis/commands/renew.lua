-- KEYS meta, log; ARGV candidate epoch, run, life of keys, the epoch that is to end. Tells everybody by a message without body.
local found = stand(ARGV[1], ARGV[2])
if found[1] == ARGV[4] then renew(found, ARGV[1], ARGV[2]) end
live(ARGV[3])
return found
