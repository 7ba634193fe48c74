-- As the version had it that told Redis the time; tests run it beside the present one.
local function begin(candidate)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local seq = last and string.match(last[1], '^%d+') or '0'
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'line', candidate, 'seq', seq)
  return seq
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'line')
local epoch, line = meta[1], meta[2]
if epoch then
  local known = redis.call('GET', KEYS[3])
  if known then
    local of, number = string.match(known, '^(%S+) (%d+)$')
    if of == line then return {epoch, number, 1} end
  end
else
  begin(ARGV[1])
  epoch, line = ARGV[1], ARGV[1]
end
local seq = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'seq', 1))
if ARGV[4] ~= '0' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], seq .. '-0', 'b', ARGV[2], 't', ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SET', KEYS[3], line .. ' ' .. seq, 'PX', ARGV[6])
redis.call('PUBLISH', string.sub(KEYS[1], 1, -6), epoch .. ' ' .. seq .. ' ' .. ARGV[2])
return {epoch, seq, 0}
