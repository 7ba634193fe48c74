-- Reads a part of all restrictions, and removes some that have expired.
-- KEYS restrictions, expiries
-- ARGV the cursor ('' to read none), how many to read about, max to remove
-- Returns whether more may have expired, the next cursor (0 at the end), and what was kept with
-- each restriction.
local most = tonumber(ARGV[3])
local found = {purge(KEYS[1], KEYS[2], most) == most and 1 or 0, '0'}
if ARGV[1] ~= '' then
  local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
  found[2] = part[1]
  for i = 2, #part[2], 2 do found[#found + 1] = part[2][i] end
end
return found
