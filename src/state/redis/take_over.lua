-- Makes a stream the writer of an open upload and removes the parts after the contiguous prefix.
-- ARGV  1 writer  2 updated_at  3 expires_at  4 time the record is removed (ms)  5 the only writer to replace, or "*"
--       6 upload id  7 channel of takeovers  8 maximum number of parts and claims to return
-- Returns the first page (prelude.lua) of the record after the call, without fields if there is no record;
-- UNKNOWNFORMAT for a record in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'phase', 'writer', 'committed')
local format, phase, writer, committed = unpack(header)
local refusal = unknown_format(format)
if refusal then
  return refusal
end
-- A writer that is already set is accepted: its first call may have succeeded without its reply.
if phase == 'open' and (ARGV[5] == '*' or writer == ARGV[5] or writer == ARGV[1]) then
  committed = tonumber(committed)
  local length, kept = redis.call('STRLEN', KEYS[2]), committed * PART
  if length > kept then
    -- Emptied in place: a shorter string would be a copy of the whole list. Receipts beside the slots stay until other
    -- parts replace them.
    redis.call('SETRANGE', KEYS[2], kept, string.rep('\0', length - kept))
  end
  for _, number in ipairs(digest_numbers()) do
    if number > committed then
      redis.call('HDEL', KEYS[1], 'digest:' .. number)
    end
  end
  if writer ~= ARGV[1] then
    redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  end
  redis.call('HSET', KEYS[1], 'writer', ARGV[1], 'updated_at', ARGV[2], 'expires_at', ARGV[3])
  redis.call('HDEL', KEYS[1], 'replaced')
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  expire_at(ARGV[4])
  -- The message is only a hint, so a Redis user without the right to publish is accepted.
  redis.pcall('PUBLISH', ARGV[7], ARGV[6] .. ' ' .. ARGV[1])
  publish_change()
end
return page(1, tonumber(ARGV[8]))
