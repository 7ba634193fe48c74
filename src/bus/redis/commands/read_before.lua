-- Reads messages before a number. They are returned oldest first.
-- KEYS meta, log
-- ARGV candidate epoch, run, ttl of keys, the number ('' for the newest of all), max messages,
-- max bytes, max age, '1' to renew an unconfirmed epoch
-- Returns the position, in which `complete` says that no older message is kept, then number and body
-- of each message; at least one message, if there is any. A deleted one has an empty body. Messages
-- that are too old are left out.
local found = position(ARGV[1], ARGV[2])
if found[4] == 0 and ARGV[8] == '1' then renew(found, ARGV[1], ARGV[2]) end
keep(ARGV[3])
local wanted, most, oldest = tonumber(ARGV[5]), tonumber(ARGV[6]), clock() - ARGV[7]
local last = math.min((tonumber(ARGV[4]) or math.huge) - 1, tonumber(found[2]))
local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end
-- As where messages are read forwards: XREVRANGE returns whole bodies, so it is asked for about as
-- many as still fit. One more than is wanted tells whether there is an older one.
local taken, bytes, fit, read = {}, 0, 2, 0
local function take(seq, body, size)
  bytes = bytes + size
  if #taken == wanted or bytes > most and #taken > 0 then return false end
  taken[#taken + 1] = {string.format('%.0f', seq), body}
  last = seq - 1
  return true
end
local function collect()
  while last >= 1 do
    local count = math.min(fit, 64, wanted + 1 - #taken, last)
    local entries = redis.call('XREVRANGE', KEYS[2], string.format('%.0f-0', last), '-', 'COUNT', count)
    for i = 1, #entries do
      if tonumber(entries[i][2][4]) < oldest then return 1 end
      local seq, body = number(entries[i]), entries[i][2][2]
      if seq < last and are_gone(seq + 1, last) then
        for gone = last, seq + 1, -1 do
          if not take(gone, '', GONE_BYTES) then return 0 end
        end
      end
      if not take(seq, body, #body) then return 0 end
    end
    if #entries < count then
      while last >= 1 and are_gone(last, last) do
        if not take(last, '', GONE_BYTES) then return 0 end
      end
      return 1
    end
    read = read + count
    fit = math.min(read, math.max(math.floor((most - bytes) * read / math.max(bytes, 1)), 0) + 1)
  end
  return 1
end
found[3] = collect()
for i = #taken, 1, -1 do
  found[#found + 1] = taken[i][1]
  found[#found + 1] = taken[i][2]
end
return found
