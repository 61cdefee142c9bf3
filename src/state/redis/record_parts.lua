-- Records parts of an open upload for its writer, all of them or none. A part replaces a recorded one of the same
-- number.
-- ARGV  1 writer  2 lowest version that the record may have  3 updated_at  4 expires_at
--       5 time the record is removed (ms)  6… part number, slot, receipt if it is kept beside the slot, digest state or ""…
-- Returns {"recorded", committed}, {"taken_over", ""}, {"not_open", phase} or {"missing", ""}; UNKNOWNFORMAT for a
-- record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'phase', 'writer', 'committed', 'version')
local format, phase, writer, committed, version = unpack(header)
local refusal = unknown_format(format)
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
committed = tonumber(committed)
for index = 6, #ARGV, 4 do
  local number, slot, receipt, digest = unpack(ARGV, index, index + 3)
  if tonumber(number) <= committed and part_slots(number, number) ~= slot then
    redis.call('HINCRBY', KEYS[1], 'rewritten', 1)
  end
  redis.call('SETRANGE', KEYS[2], (number - 1) * PART, slot)
  if bit.band(string.byte(slot), HAS_LONG_RECEIPT) ~= 0 then
    redis.call('HSET', KEYS[4], number, receipt)
  end
  if digest ~= '' then
    redis.call('HSET', KEYS[1], 'digest:' .. number, digest)
  else
    redis.call('HDEL', KEYS[1], 'digest:' .. number)
  end
  while has(committed + 1) do
    committed = committed + 1
  end
end
-- No resume needs the others: see Parts::insert.
for _, number in ipairs(digest_numbers()) do
  if number < committed and has_checksum(number) and has_checksum(number + 1) then
    redis.call('HDEL', KEYS[1], 'digest:' .. number)
  end
end
redis.call('HSET', KEYS[1], 'committed', committed, 'updated_at', ARGV[3], 'expires_at', ARGV[4])
expire_at(ARGV[5])
if #ARGV > 5 then
  publish_change()
end
return {'recorded', tostring(committed)}
