-- Reads what a listing shows of a record: its header and its last committed part.
-- KEYS  1 record
-- Returns fields and values; none when there is no record.
local names = {'record', 'version', 'phase', 'writer', 'updated_at', 'expires_at', 'committed'}
local fields = {}
for index, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
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
