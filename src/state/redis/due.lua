-- Reads the uploads that are due, ordered by time and then by id.
-- KEYS  1 due
-- ARGV  1 first time  2 id with that time after which to start, or ""  3 last time  4 maximum number of members
-- Returns member, time, member, time…
local wanted, found, offset = 2 * tonumber(ARGV[4]), {}, 0
repeat
  local batch = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[3], 'BYSCORE', 'LIMIT', offset, ARGV[4], 'WITHSCORES')
  for index = 1, #batch, 2 do
    local id = string.match(batch[index], '^[^:]*')
    local is_later = tonumber(batch[index + 1]) > tonumber(ARGV[1]) or id > ARGV[2]
    if is_later and #found < wanted then
      found[#found + 1] = batch[index]
      found[#found + 1] = batch[index + 1]
    end
  end
  offset = offset + #batch / 2
until #batch < wanted or #found == wanted
return found
