-- Removes a new record that nothing has used since it was created.
-- ARGV  1 upload id  2 its fingerprint, or ""  3 version  4 updated_at
-- Returns 1 if there is no such record now, 0 if it is used; UNKNOWNFORMAT for a record in another format.
local format, version, updated_at = unpack(redis.call('HMGET', KEYS[1], 'format', 'version', 'updated_at'))
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if format then
  if version ~= ARGV[3] or updated_at ~= ARGV[4] or redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then
    return 0
  end
  redis.call('DEL', KEYS[1], KEYS[4])
end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[5], ARGV[2])
end
return 1
