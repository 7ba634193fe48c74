-- Passes a signal to all nodes.
-- KEYS nodes, from which the name of the channel is derived
-- ARGV message
return redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), ARGV[1])
