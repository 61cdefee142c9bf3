-- Makes a stream the writer of an open upload and forgets the parts behind a gap.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 writer  2 updated_at  3 expires_at  4 time the record is removed (ms)
-- Returns all fields and values of the record as it now is; none when there is no record.
if redis.call('HGET', KEYS[1], 'phase') == 'open' then
  local committed = tonumber(redis.call('HGET', KEYS[1], 'committed'))
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
end
return redis.call('HGETALL', KEYS[1])
