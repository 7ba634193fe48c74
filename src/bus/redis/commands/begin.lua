-- Begins a room that is not there: with the number at which its stream ends, should only the hash have been lost.
-- An id that is not larger than the last one would be refused by `XADD`, *after* the counter was increased.
local function begin(candidate, run)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local seq = last and string.match(last[1], '^%d+') or '0'
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'line', candidate, 'seq', seq, 'run', run)
  return seq
end
