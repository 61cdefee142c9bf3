-- Records parts of an open upload for its writer, each in place of one of its number: all of them or none.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 version that the record must have reached  3 updated_at  4 expires_at
--       5 time the record is removed (ms)  6… part number, part as JSON…
-- Returns {"recorded", committed}, {"taken_over", ""}, {"not_open", phase} or {"missing", ""}.
local header = redis.call('HMGET', KEYS[1], 'phase', 'writer', 'committed', 'version')
local phase, writer, committed, version = header[1], header[2], tonumber(header[3]), tonumber(header[4])
if not phase then
  return {'missing', ''}
end
-- First: whoever took it over may have finished it since.
if writer ~= ARGV[1] then
  return {'taken_over', ''}
end
-- The session that the parts belong to may be among what was lost.
if version < tonumber(ARGV[2]) then
  return {'missing', ''}
end
if phase ~= 'open' then
  return {'not_open', phase}
end
for index = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'part:' .. ARGV[index], ARGV[index + 1])
end
while redis.call('HEXISTS', KEYS[1], 'part:' .. string.format('%d', committed + 1)) == 1 do
  committed = committed + 1
end
redis.call('HSET', KEYS[1], 'committed', committed, 'updated_at', ARGV[3], 'expires_at', ARGV[4])
redis.call('PEXPIREAT', KEYS[1], ARGV[5])
if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[5]) then
  redis.call('PEXPIREAT', KEYS[2], ARGV[5])
end
return {'recorded', tostring(committed)}
