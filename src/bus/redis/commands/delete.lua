-- Deletes messages of a room and publishes the announcement of that.
-- KEYS as in publish.lua, then gone
-- ARGV as in publish.lua, then the epoch that the numbers count in ('' for the present one), how
-- announcements begin, and the numbers
-- Returns what publish.lua does; `epoch seq known` with the first number if all were deleted before,
-- so that a repeated call announces nothing again; `missing` if there is no such message.
--
-- Removing an entry takes no memory, and a script that has written is not refused memory. So the
-- announcement cannot fail after a message was removed.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, top = meta[1], tonumber(meta[2] or 0)
if not epoch or ARGV[7] ~= '' and ARGV[7] ~= epoch then return 'missing' end
local held, gone = {}, 0
for i = 9, #ARGV do
  local seq, id = ARGV[i], ARGV[i] .. '-0'
  if tonumber(seq) < 1 or tonumber(seq) > top then return 'missing' end
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  if entry then
    if string.sub(entry[2][2], 1, #ARGV[8]) == ARGV[8] then return 'missing' end
    held[#held + 1] = seq
  elseif redis.call('ZCOUNT', KEYS[4], seq, seq) == 1 then
    gone = gone + 1
  end
end
if gone == #ARGV - 8 then return epoch .. ' ' .. ARGV[9] .. ' known' end
for _, seq in ipairs(held) do
  redis.call('XDEL', KEYS[2], seq .. '-0')
  redis.call('ZADD', KEYS[4], seq, seq)
end
local published = publish()
if type(published) == 'table' then return published end
-- Until `gone` expires, all messages that are deleted now have become too old.
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[4]) end
if ARGV[3] ~= '0' then
  -- It has the end of a message, which may be one of these.
  redis.call('HDEL', KEYS[1], 'last')
  -- Deleted messages are no entries, so the stream may have earlier numbers than it has space for.
  local over = top + 1 - tonumber(ARGV[3])
  if over > 0 then
    redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', over + 1))
    local old = redis.call('ZRANGE', KEYS[4], '-inf', string.format('%.0f', over), 'BYSCORE', 'LIMIT', 0, 1000)
    if #old > 0 then redis.call('ZREM', KEYS[4], unpack(old)) end
  end
end
return published
