-- The position of a room, as the first items of an answer: epoch, top, whether the messages that
-- follow reach up to top, whether the epoch is confirmed in this run, and the end of message top
-- or ''.
local function position(candidate, run)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'run', 'last')
  local epoch, top, known, last = meta[1], meta[2], meta[3], meta[4]
  if not epoch then epoch, top, known = candidate, begin(candidate, run), run end
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local ending = ''
  if newest and newest[1] == top .. '-0' then
    ending = string.sub(newest[2][2], -32)
  elseif last and string.sub(last, 1, #top + 1) == top .. ' ' then
    ending = string.sub(last, #top + 2)
  end
  return {epoch, top, 1, known == run and 1 or 0, ending}, newest
end
local function renew(found, candidate, run)
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'run', run)
  redis.call('PUBLISH', string.sub(KEYS[1], 1, -6), candidate .. ' ' .. found[2] .. ' ')
  found[1], found[4] = candidate, 1
end
local function keep(ttl)
  redis.call('PEXPIRE', KEYS[1], ttl)
  redis.call('PEXPIRE', KEYS[2], ttl)
end
