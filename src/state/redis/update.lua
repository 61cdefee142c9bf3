-- Replaces everything of a record except its parts and claims, if its version, its writer and, if given, its updated_at
-- are the expected ones. Of an upload that has ended, also removes its parts, claims and digest states.
-- ARGV  1 expected version  2 upload id  3 fingerprint to release, or ""  4 time the record is removed (ms)
--       5 record as JSON  6 expected updated_at, or ""  7 expected writer  8 "1" if the upload has ended, or ""
--       9… field, value, field, value…
-- Returns {"updated", version}, {"conflict", ""} or {"missing", ""}; UNKNOWNFORMAT for a record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'version', 'writer', 'updated_at', 'replaced', 'watched')
local format, version, writer, updated_at, replaced, watched = unpack(header)
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if not version then
  return {'missing', ''}
end
-- "replaced" is the version that the last update replaced; a takeover removes it. A call that expects that version and
-- passes the stored record is the last update again, whose first reply was lost.
if replaced == ARGV[1] and header_json() == ARGV[5] then
  -- WAIT only waits for writes of its own connection, so the repeated call writes again.
  redis.call('HSET', KEYS[1], 'version', version)
  return {'updated', version}
end
local is_touched = ARGV[6] ~= '' and updated_at ~= ARGV[6]
if version ~= ARGV[1] or writer ~= ARGV[7] or is_touched then
  return {'conflict', ''}
end
local next_version = string.format('%d', tonumber(ARGV[1]) + 1)
local cut = redis.call('HGET', KEYS[1], 'cut')
if ARGV[8] == '1' then
  redis.call('DEL', unpack(KEYS, 1, 4))
  redis.call('HSET', KEYS[1], 'format', FORMAT, 'committed', 0, 'rewritten', 0)
  if watched then
    redis.call('HSET', KEYS[1], 'watched', watched)
  end
end
redis.call('HSET', KEYS[1], 'version', next_version, 'record', ARGV[5], 'replaced', ARGV[1])
for index = 9, #ARGV, 2 do
  local field, value = ARGV[index], ARGV[index + 1]
  if field == 'cut' then
    -- A claim may have begun a new cut since the caller read the record.
    value = math.max(tonumber(value), tonumber(cut or 0))
  end
  redis.call('HSET', KEYS[1], field, value)
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[5], ARGV[3]) == ARGV[2] then
  redis.call('HDEL', KEYS[5], ARGV[3])
end
expire_at(ARGV[4])
publish_change()
return {'updated', next_version}
