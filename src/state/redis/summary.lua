-- Reads the fields of a record that a listing shows: its header and its last committed part.
-- KEYS  1 record
-- Returns fields and values; an empty list if there is no record, UNKNOWNFORMAT for a record in another format.
local names = {'format', 'record', 'version', 'phase', 'writer', 'updated_at', 'expires_at', 'committed'}
local header = redis.call('HMGET', KEYS[1], unpack(names))
local refusal = unknown_format(KEYS[1], header[1])
if refusal then
  return refusal
end
local fields = {}
for index, value in ipairs(header) do
  if not value then
    return {}
  end
  fields[#fields + 1] = names[index]
  fields[#fields + 1] = value
end
local last = 'part:' .. fields[#fields]
local part = redis.call('HGET', KEYS[1], last)
if part then
  fields[#fields + 1] = last
  fields[#fields + 1] = part
end
return fields
