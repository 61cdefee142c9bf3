-- Makes a stream the writer of an open upload and removes the parts after the contiguous prefix.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 updated_at  3 expires_at  4 time the record is removed (ms)  5 the only writer to replace, or "*"
--       6 upload id  7 channel of takeovers
-- Returns all fields and values of the record after the call; an empty list if there is no record, UNKNOWNFORMAT for a
-- record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'phase', 'writer', 'committed')
local format, phase, writer, committed = unpack(header)
local refusal = unknown_format(KEYS[1], format)
if refusal then
  return refusal
end
-- A writer that is already set is accepted: its first call may have succeeded without its reply.
if phase == 'open' and (ARGV[5] == '*' or writer == ARGV[5] or writer == ARGV[1]) then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local number = string.match(field, '^part:(%d+)$')
    if number and tonumber(number) > tonumber(committed) then
      redis.call('HDEL', KEYS[1], field)
    end
  end
  redis.call('HSET', KEYS[1], 'writer', ARGV[1], 'updated_at', ARGV[2], 'expires_at', ARGV[3])
  redis.call('HDEL', KEYS[1], 'replaced')
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('PEXPIREAT', KEYS[1], ARGV[4])
  if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[4]) then
    redis.call('PEXPIREAT', KEYS[2], ARGV[4])
  end
  -- The message is only a hint, so a Redis user without the right to publish is accepted.
  redis.pcall('PUBLISH', ARGV[7], ARGV[6] .. ' ' .. ARGV[1])
end
return redis.call('HGETALL', KEYS[1])
