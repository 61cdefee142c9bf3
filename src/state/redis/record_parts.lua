-- Records parts of an open upload for its writer, all of them or none. A part replaces a recorded one of the same
-- number.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 lowest version that the record may have  3 updated_at  4 expires_at
--       5 time the record is removed (ms)  6… part number, part as JSON…
-- Returns {"recorded", committed}, {"taken_over", ""}, {"not_open", phase} or {"missing", ""}; UNKNOWNFORMAT for a
-- record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'phase', 'writer', 'committed', 'version')
local format, phase, writer, committed, version = unpack(header)
local refusal = unknown_format(KEYS[1], format)
if refusal then
  return refusal
end
if not phase then
  return {'missing', ''}
end
-- Checked before the phase: the stream that took the upload over may have finished it.
if writer ~= ARGV[1] then
  return {'taken_over', ''}
end
-- An older version lost acknowledged writes, perhaps the session that the parts belong to.
if tonumber(version) < tonumber(ARGV[2]) then
  return {'missing', ''}
end
if phase ~= 'open' then
  return {'not_open', phase}
end
for index = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'part:' .. ARGV[index], ARGV[index + 1])
end
committed = tonumber(committed)
while redis.call('HEXISTS', KEYS[1], 'part:' .. string.format('%d', committed + 1)) == 1 do
  committed = committed + 1
end
redis.call('HSET', KEYS[1], 'committed', committed, 'updated_at', ARGV[3], 'expires_at', ARGV[4])
redis.call('PEXPIREAT', KEYS[1], ARGV[5])
if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[5]) then
  redis.call('PEXPIREAT', KEYS[2], ARGV[5])
end
return {'recorded', tostring(committed)}
