-- Unix milliseconds by Redis' clock and no other: a node whose own is ahead would take everybody's history for too old.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
