-- Replaces a text, unless another one than the caller has seen is stored now.
-- KEYS  1 text
-- ARGV  1 the text that the caller has seen, or ""  2 the new one
-- Returns 1 if the new text is stored now, else 0.
local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] and stored ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
