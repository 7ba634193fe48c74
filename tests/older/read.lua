-- As the version had it that told Redis the time; tests run it beside the present one.
local function begin(candidate)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local seq = last and string.match(last[1], '^%d+') or '0'
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'line', candidate, 'seq', seq)
  return seq
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, top = meta[1], meta[2]
if not epoch then epoch, top = ARGV[1], begin(ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local found, bytes, most, oldest = {epoch, top, 1}, 0, tonumber(ARGV[4]), tonumber(ARGV[5])
if most == 0 then return found end
while oldest > 0 do
  local entries, young = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 64), nil
  for i = 1, #entries do
    if tonumber(entries[i][2][4]) >= oldest then young = i break end
  end
  if young == 1 or #entries == 0 then break end
  local from = young and entries[young][1] or string.format('%.0f-1', tonumber(string.match(entries[#entries][1], '^%d+')))
  redis.call('XTRIM', KEYS[2], 'MINID', from)
  if young then break end
end
local first = tonumber(ARGV[3])
if first < 0 then first = math.max(tonumber(top) + first + 1, 1) end
while true do
  local entries = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', first), '+', 'COUNT', 64)
  for i = 1, #entries do
    local body = entries[i][2][2]
    bytes = bytes + #body
    if bytes > most and #found > 5 then found[3] = 0 return found end
    found[#found + 1] = string.match(entries[i][1], '^%d+')
    found[#found + 1] = body
  end
  if #entries < 64 then return found end
  first = tonumber(found[#found - 1]) + 1
end
