-- Records one part of an open upload for its writer; a number that is recorded keeps its first part.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 part number  3 part as JSON  4 updated_at  5 expires_at  6 time the record is removed (ms)
-- Returns {"recorded", committed}, {"taken_over", ""}, {"not_open", phase} or {"missing", ""}.
local header = redis.call('HMGET', KEYS[1], 'phase', 'writer', 'committed')
local phase, writer, committed = header[1], header[2], tonumber(header[3])
if not phase then
  return {'missing', ''}
end
-- First: whoever took it over may have finished it since.
if writer ~= ARGV[1] then
  return {'taken_over', ''}
end
if phase ~= 'open' then
  return {'not_open', phase}
end
redis.call('HSETNX', KEYS[1], 'part:' .. ARGV[2], ARGV[3])
while redis.call('HEXISTS', KEYS[1], 'part:' .. string.format('%d', committed + 1)) == 1 do
  committed = committed + 1
end
redis.call('HSET', KEYS[1], 'committed', committed, 'updated_at', ARGV[4], 'expires_at', ARGV[5])
redis.call('PEXPIREAT', KEYS[1], ARGV[6])
if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[6]) then
  redis.call('PEXPIREAT', KEYS[2], ARGV[6])
end
return {'recorded', tostring(committed)}
