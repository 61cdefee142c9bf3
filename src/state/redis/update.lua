-- Replaces everything of a record except its parts and claims, if its version, its writer and, if given, its updated_at
-- are the expected ones. Can also remove its parts, claims and digest states.
-- ARGV  1 expected version  2 upload id  3 fingerprint to release, or ""  4 time the record is removed (ms)
--       5 record as JSON  6 expected updated_at, or ""  7 expected writer  8 "1" to remove its parts, or ""
--       9… field, value, field, value…
-- Returns {"updated", version}, {"conflict", ""} or {"missing", ""}; UNKNOWNFORMAT for a record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'version', 'writer', 'updated_at', 'replaced', 'record')
local format, version, writer, updated_at, replaced, record = unpack(header)
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if not version then
  return {'missing', ''}
end
-- "replaced" is the version that the last update replaced; a takeover removes it. A call that expects that version and
-- passes the stored record is the last update again, whose first reply was lost.
if replaced == ARGV[1] and record == ARGV[5] then
  -- WAIT only waits for writes of its own connection, so the repeated call writes again.
  redis.call('HSET', KEYS[1], 'version', version)
  return {'updated', version}
end
local is_touched = ARGV[6] ~= '' and updated_at ~= ARGV[6]
if version ~= ARGV[1] or writer ~= ARGV[7] or is_touched then
  return {'conflict', ''}
end
local next_version = string.format('%d', tonumber(ARGV[1]) + 1)
redis.call('HSET', KEYS[1], 'version', next_version, 'record', ARGV[5], 'replaced', ARGV[1])
for index = 9, #ARGV, 2 do
  local field, value = ARGV[index], ARGV[index + 1]
  if field == 'cut' then
    -- A claim may have begun a new cut since the caller read the record.
    value = math.max(tonumber(value), tonumber(redis.call('HGET', KEYS[1], 'cut')))
  end
  redis.call('HSET', KEYS[1], field, value)
end
if ARGV[8] == '1' then
  for _, number in ipairs(digest_numbers()) do
    redis.call('HDEL', KEYS[1], 'digest:' .. number)
  end
  redis.call('HSET', KEYS[1], 'committed', 0, 'rewritten', 0)
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[5], ARGV[3]) == ARGV[2] then
  redis.call('HDEL', KEYS[5], ARGV[3])
end
expire_at(ARGV[4])
publish_change()
return {'updated', next_version}
