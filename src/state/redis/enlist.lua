-- Notes an upload in its owner's listing, which lives as long as its longest-lived upload.
-- KEYS  1 listing
-- ARGV  1 member  2 time the record is removed (ms)
-- Returns nothing.
redis.call('ZADD', KEYS[1], 0, ARGV[1])
if redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
