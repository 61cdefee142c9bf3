-- Removes the record of a COMPLETE upload.
-- ARGV  1 version of the record
-- Returns 1 if there is no such record now, 0 if it has changed; UNKNOWNFORMAT for a record in another format.
local format, version, phase = unpack(redis.call('HMGET', KEYS[1], 'format', 'version', 'phase'))
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if format then
  if version ~= ARGV[1] or phase ~= 'complete' then
    return 0
  end
  redis.call('DEL', unpack(KEYS, 1, 4))
end
return 1
