-- KEYS nodes, which is only there to tell the room; ARGV what to publish.
return redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), ARGV[1])
