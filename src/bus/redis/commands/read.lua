-- Reads messages, oldest first.
-- KEYS meta, log
-- ARGV candidate epoch, run, ttl of keys, first number (or minus the number of newest messages),
-- max bytes, max age ('' for any), '1' to renew an unconfirmed epoch
-- Returns the position, then number and body of each message; at least two messages, if there are
-- as many. Messages that are too old are removed from the stream, so that each is examined only
-- once.
local found, newest = position(ARGV[1], ARGV[2])
if found[4] == 0 and ARGV[7] == '1' then renew(found, ARGV[1], ARGV[2]) end
keep(ARGV[3])
local top, bytes, most, age = found[2], 0, tonumber(ARGV[5]), tonumber(ARGV[6])
if most == 0 then return found end
local oldest = age and clock() - age
if oldest and newest and tonumber(newest[2][4]) < oldest then
  redis.call('HSET', KEYS[1], 'last', top .. ' ' .. found[5])
end
while oldest do
  local entries, young = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 64), nil
  for i = 1, #entries do
    if tonumber(entries[i][2][4]) >= oldest then young = i break end
  end
  if young == 1 or #entries == 0 then break end
  local from = young and entries[young][1] or string.format('%.0f-1', tonumber(string.match(entries[#entries][1], '^%d+')))
  redis.call('XTRIM', KEYS[2], 'MINID', from)
  if young then break end
end
local first = tonumber(ARGV[4])
if first < 0 then first = math.max(tonumber(top) + first + 1, 1) end
while true do
  local entries = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', first), '+', 'COUNT', 64)
  for i = 1, #entries do
    local body = entries[i][2][2]
    bytes = bytes + #body
    if bytes > most and #found > 7 then found[3] = 0 return found end
    found[#found + 1] = string.match(entries[i][1], '^%d+')
    found[#found + 1] = body
  end
  if #entries < 64 then return found end
  first = tonumber(found[#found - 1]) + 1
end
