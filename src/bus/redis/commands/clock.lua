-- Unix milliseconds by the clock of Redis. A node's clock may be ahead, and would make all
-- history look too old.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
