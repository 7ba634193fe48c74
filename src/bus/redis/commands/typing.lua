-- Tells all nodes that a user is typing.
-- KEYS nodes, from which the name of the channel is derived
-- ARGV message
return redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), ARGV[1])
