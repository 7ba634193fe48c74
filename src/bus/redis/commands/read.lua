-- Reads messages, oldest first.
-- KEYS meta, log
-- ARGV candidate epoch, run, ttl of keys, first number (or minus the number of newest messages),
-- max bytes, max age ('' for any), '1' to renew an unconfirmed epoch
-- Returns the position, then number and body of each message; at least two messages, if there are
-- as many. A deleted one has an empty body. Messages that are too old are removed from the stream.
local found, newest = position(ARGV[1], ARGV[2])
if found[4] == 0 and ARGV[7] == '1' then renew(found, ARGV[1], ARGV[2]) end
keep(ARGV[3])
local top, bytes, most, age = tonumber(found[2]), 0, tonumber(ARGV[5]), tonumber(ARGV[6])
if most == 0 then return found end
local oldest = age and clock() - age
if oldest and newest and tonumber(newest[2][4]) < oldest then
  redis.call('HSET', KEYS[1], 'last', found[2] .. ' ' .. found[5])
end
local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function at(seq) return redis.call('XRANGE', KEYS[2], string.format('%.0f-0', seq), '+', 'COUNT', 1)[1] end
local function is_old(entry) return tonumber(entry[2][4]) < oldest end
local eldest = oldest and newest and at(0)
if eldest and is_old(eldest) then
  -- `old` is too old, and nothing from `young` on is: times rise with numbers.
  local old, young = number(eldest), number(newest)
  if is_old(newest) then old, young = young, young + 1 end
  while young - old > 1 do
    local middle = math.floor((old + young) / 2)
    local entry = at(middle)
    if is_old(entry) then old = number(entry) else young = middle end
  end
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', young))
end
local first = tonumber(ARGV[4])
if first < 0 then first = math.max(top + first + 1, 1) end
local function add(seq, body, size)
  bytes = bytes + size
  if bytes > most and #found > 7 then found[3] = 0 return false end
  found[#found + 1] = string.format('%.0f', seq)
  found[#found + 1] = body
  return true
end
-- XRANGE returns whole bodies, so it is asked for about as many as still fit, by the mean size so
-- far, and for at most twice as many as are known to fit.
local fit, read = 2, 0
while first <= top do
  local count = math.min(fit, 64, top - first + 1)
  local entries = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', first), '+', 'COUNT', count)
  for i = 1, #entries do
    local seq = number(entries[i])
    if seq > first and are_gone(first, seq - 1) then
      for gone = first, seq - 1 do
        if not add(gone, '', GONE_BYTES) then return found end
      end
    end
    local body = entries[i][2][2]
    if not add(seq, body, #body) then return found end
    first = seq + 1
  end
  if #entries < count then return found end
  read = read + count
  fit = math.min(read, math.max(math.floor((most - bytes) * read / math.max(bytes, 1)), 0) + 1)
end
return found
