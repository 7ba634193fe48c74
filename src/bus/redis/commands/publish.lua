-- Publishes a message: numbers it, stores it and sends it to the channel, unless its id is known.
-- KEYS meta, log, id
-- ARGV candidate epoch, body, max messages, ttl of keys, ttl of the id, run
-- Returns `epoch seq`, and ` known` after it if the id was known. One string costs Redis less
-- than a list.
--
-- Numbers are written by string.format; Lua would write large ones as 1e+15. All that can fail
-- comes before PUBLISH, so that nothing is published that is not stored. If storing fails, the id
-- is forgotten, so that the sender can try again. The clock comes first, because the Redis user
-- may lack the right to read it.
--
-- The ttl is renewed two minutes after the last renewal (`till`), which saves a tenth of the
-- time. It is also renewed if the stream is new, perhaps because it alone was lost; NOMKSTREAM
-- detects that without another call.
local now = clock()
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'line', 'seq', 'till')
local epoch, line, last, till = meta[1], meta[2], meta[3], tonumber(meta[4] or 0)
if not epoch then
  last = begin(ARGV[1], ARGV[6])
  epoch, line = ARGV[1], ARGV[1]
end
local seq = string.format('%.0f', last + 1)
local mark = line .. ' ' .. seq
local known = redis.call('SET', KEYS[3], mark, 'NX', 'GET', 'PX', ARGV[5])
if known then
  local of, number = string.match(known, '^(%S+) (%d+)$')
  if of == line then return epoch .. ' ' .. number .. ' known' end
  redis.call('SET', KEYS[3], mark, 'PX', ARGV[5])
end
redis.call('HSET', KEYS[1], 'seq', seq)
if ARGV[3] ~= '0' then
  local stamp = string.format('%.0f', now)
  local kept = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], seq .. '-0', 'b', ARGV[2], 't', stamp)
  if not kept then
    kept = redis.pcall('XADD', KEYS[2], seq .. '-0', 'b', ARGV[2], 't', stamp)
    till = 0
  end
  if type(kept) == 'table' then
    redis.call('DEL', KEYS[3])
    return kept
  end
else
  redis.call('HSET', KEYS[1], 'last', seq .. ' ' .. string.sub(ARGV[2], -32))
end
if now >= till or till > now + 120000 then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[1], 'till', string.format('%.0f', now + 120000))
end
redis.call('PUBLISH', string.sub(KEYS[1], 1, -6), epoch .. ' ' .. seq .. ' ' .. ARGV[2])
return epoch .. ' ' .. seq
