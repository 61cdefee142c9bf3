-- Stores a new record, unless another live upload holds its fingerprint.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 upload id  2 fingerprint, or ""  3 holder of the fingerprint that is known to be over, or ""
--       4 time the record is removed (ms)  5… field, value, field, value…
-- Returns "" if the record is stored, by this call or an earlier one; otherwise the id of the upload that holds the
-- fingerprint. Returns UNKNOWNFORMAT if the id has a record in another format.
local format, version = unpack(redis.call('HMGET', KEYS[1], 'format', 'version'))
local refusal = unknown_format(KEYS[1], format)
if refusal then
  return refusal
end
if format then
  -- WAIT only waits for writes of its own connection, so the repeated call writes again.
  redis.call('HSET', KEYS[1], 'version', version)
  return ''
end
if ARGV[2] ~= '' then
  local holder = redis.call('HGET', KEYS[2], ARGV[2])
  if holder and holder ~= ARGV[3] then
    return holder
  end
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
  if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[4]) then
    redis.call('PEXPIREAT', KEYS[2], ARGV[4])
  end
end
for index = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
end
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return ''
