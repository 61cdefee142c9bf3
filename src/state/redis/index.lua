-- Adds an upload to a sorted set (a listing, or due) and makes the set expire no earlier than the record.
-- KEYS  1 sorted set
-- ARGV  1 member  2 score  3 time the record is removed (ms)
-- Returns nothing.
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
