-- Whether all messages from one number to another are deleted. They leave holes in the stream; other
-- holes are for the reader to see. The key is no argument: a room most often has no such key, and a
-- slot that moves answers no script with a key that is missing.
local function are_gone(from, to)
  local gone = string.sub(KEYS[1], 1, -5) .. 'gone'
  return redis.call('ZCOUNT', gone, string.format('%.0f', from), string.format('%.0f', to)) == to - from + 1
end
-- What a deleted message counts, for which a tombstone is shown.
local GONE_BYTES = 192
