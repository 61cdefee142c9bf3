-- Corrects an entry of due, unless it changed since it was read.
-- KEYS  1 due
-- ARGV  1 member  2 time it was read with  3 its correct time, or "" to remove it  4 time the record is removed (ms)
-- Returns nothing.
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known or tonumber(known) ~= tonumber(ARGV[2]) then
  return
end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
if redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIREAT', KEYS[1], ARGV[4])
end
