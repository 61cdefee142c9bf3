-- Stores the header of a record in pieces so short that the server keeps the whole hash in one block of memory
-- (hash-max-listpack-value, 64 bytes by default), and only the fields that scripts compare. Does nothing if the record has
-- changed.
-- ARGV  1 version of the record  2 header as JSON  3… names of the fields to keep
-- Returns nothing; UNKNOWNFORMAT for a record in another format.
local format, version = unpack(redis.call('HMGET', KEYS[1], 'format', 'version'))
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if version ~= ARGV[1] then
  return
end
local removed_at = redis.call('PEXPIRETIME', KEYS[1])
local kept = {}
for index = 3, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[index])
  if value then
    kept[#kept + 1] = ARGV[index]
    kept[#kept + 1] = value
  end
end
for first = 1, #ARGV[2], PIECE do
  kept[#kept + 1] = 'r' .. (first - 1) / PIECE + 1
  kept[#kept + 1] = string.sub(ARGV[2], first, first + PIECE - 1)
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(kept))
if removed_at >= 0 and removed_at < NEVER then
  redis.call('PEXPIREAT', KEYS[1], removed_at)
end
