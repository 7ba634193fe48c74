-- Begins a room without state. If only the hash was lost, numbering continues at the end of the
-- stream: XADD would refuse a lower id, after the counter had been increased.
local function begin(candidate, run)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local seq = last and string.match(last[1], '^%d+') or '0'
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'line', candidate, 'seq', seq, 'run', run)
  return seq
end
