-- Reads what is due, in the order of time and then of name.
-- KEYS  1 due
-- ARGV  1 first time  2 member of that time behind which to begin, or ""  3 last time  4 at most so many
-- Returns member, time, member, time…
local wanted, found, offset = 2 * tonumber(ARGV[4]), {}, 0
repeat
  local batch = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[3], 'BYSCORE', 'LIMIT', offset, ARGV[4], 'WITHSCORES')
  for index = 1, #batch, 2 do
    local is_behind = tonumber(batch[index + 1]) > tonumber(ARGV[1]) or batch[index] > ARGV[2]
    if is_behind and #found < wanted then
      found[#found + 1] = batch[index]
      found[#found + 1] = batch[index + 1]
    end
  end
  offset = offset + #batch / 2
until #batch < wanted or #found == wanted
return found
