-- Makes a stream the writer of an open upload and forgets the parts behind a gap.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 updated_at  3 expires_at  4 time the record is removed (ms)  5 the only writer to take it from, or "*"
--       6 upload id  7 channel of takeovers
-- Returns all fields and values of the record as it now is; none when there is no record.
local header = redis.call('HMGET', KEYS[1], 'phase', 'writer', 'committed')
local phase, writer, committed = header[1], header[2], tonumber(header[3])
-- Its own place is taken again when the answer was lost.
if phase == 'open' and (ARGV[5] == '*' or writer == ARGV[5] or writer == ARGV[1]) then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local number = string.match(field, '^part:(%d+)$')
    if number and tonumber(number) > committed then
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
  -- A hint, so a user that may not publish does no harm.
  redis.pcall('PUBLISH', ARGV[7], ARGV[6] .. ' ' .. ARGV[1])
end
return redis.call('HGETALL', KEYS[1])
