-- Replaces everything of a record but its parts and claims, if its version, its writer, and where asked its time, are the
-- expected ones.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 expected version  2 upload id  3 fingerprint to release, or ""  4 time the record is removed (ms)
--       5 record as JSON  6 updated_at that it must still have, or ""  7 expected writer  8… field, value, field, value…
-- Returns {"updated", version}, {"conflict", all fields and values of the record} or {"missing", ""}.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then
  return {'missing', ''}
end
-- "replaced" is the version the last update replaced, until a stream takes over: the same update again is an echo.
local last = redis.call('HMGET', KEYS[1], 'replaced', 'record')
if last[1] == ARGV[1] and last[2] == ARGV[5] then
  -- Written again, for replicas are only waited for by a connection that wrote.
  redis.call('HSET', KEYS[1], 'version', version)
  return {'updated', version}
end
local is_touched = ARGV[6] ~= '' and redis.call('HGET', KEYS[1], 'updated_at') ~= ARGV[6]
if version ~= ARGV[1] or redis.call('HGET', KEYS[1], 'writer') ~= ARGV[7] or is_touched then
  return {'conflict', redis.call('HGETALL', KEYS[1])}
end
local next_version = string.format('%d', tonumber(ARGV[1]) + 1)
redis.call('HSET', KEYS[1], 'version', next_version, 'record', ARGV[5], 'replaced', ARGV[1])
for index = 8, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
end
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
if ARGV[3] ~= '' and redis.call('HGET', KEYS[2], ARGV[3]) == ARGV[2] then
  redis.call('HDEL', KEYS[2], ARGV[3])
end
if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[4]) then
  redis.call('PEXPIREAT', KEYS[2], ARGV[4])
end
return {'updated', next_version}
