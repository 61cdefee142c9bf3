-- Adds a live upload to those of its owner, unless the owner has too many others.
-- KEYS  1 live uploads of the owner, by the time at which each must have ended
-- ARGV  1 upload id  2 that time (ms)  3 maximum number of members, or ""  4 present time (ms)
-- Returns 1 if the upload is a member now, else 0.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[4])
if ARGV[3] ~= '' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
