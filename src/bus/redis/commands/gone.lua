-- Whether all messages from one number to another are deleted. They leave holes in the stream; other
-- holes are for the reader to see.
local function are_gone(from, to)
  return redis.call('ZCOUNT', KEYS[3], string.format('%.0f', from), string.format('%.0f', to)) == to - from + 1
end
-- What a deleted message counts, for which a tombstone is shown.
local GONE_BYTES = 192
