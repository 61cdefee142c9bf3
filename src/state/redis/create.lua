-- Stores a new record, unless another live upload holds its fingerprint.
-- ARGV  1 upload id  2 fingerprint, or ""  3 holder of the fingerprint that is known to be over, or ""
--       4 time the record is removed (ms)  5 slots of its parts  6 slots of its claims
--       7 number of fields of the record  8… field, value…, then receipts: part number, receipt…
-- Returns "" if the record is stored, by this call or an earlier one; otherwise the id of the upload that holds the
-- fingerprint. Returns UNKNOWNFORMAT if the id has a record in another format.
local format, version = unpack(redis.call('HMGET', KEYS[1], 'format', 'version'))
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if format then
  -- WAIT only waits for writes of its own connection, so the repeated call writes again.
  redis.call('HSET', KEYS[1], 'version', version)
  return ''
end
if ARGV[2] ~= '' then
  local holder = redis.call('HGET', KEYS[5], ARGV[2])
  if holder and holder ~= ARGV[3] then
    return holder
  end
  redis.call('HSET', KEYS[5], ARGV[2], ARGV[1])
end
local first_receipt = 8 + 2 * tonumber(ARGV[7])
for index = 8, #ARGV, 2 do
  redis.call('HSET', index < first_receipt and KEYS[1] or KEYS[4], ARGV[index], ARGV[index + 1])
end
for key, slots in pairs({[KEYS[2]] = ARGV[5], [KEYS[3]] = ARGV[6]}) do
  if slots ~= '' then
    redis.call('SET', key, slots)
  end
end
expire_at(ARGV[4])
return ''
