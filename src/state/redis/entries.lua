-- Sets or removes the entries of one upload in the indexes of a listing, and makes these expire no earlier than the record.
-- KEYS  the indexes, that of its phase first: sorted sets with equal scores
-- ARGV  1 time the record is removed (ms)  2… for each index: order of the entry, the whole entry or "" to remove it
-- Returns 1 if an entry was added or removed, else 0.
-- Most updates change no entry. What one index has, the others have: no other script writes them. But each index expires on its
-- own.
local lasts = redis.call('ZSCORE', KEYS[1], ARGV[3])
for index, key in ipairs(KEYS) do
  lasts = lasts and (ARGV[2 * index + 1] == '' or redis.call('PEXPIRETIME', key) >= tonumber(ARGV[1]))
end
if lasts then
  return 0
end
local changed = 0
for index, key in ipairs(KEYS) do
  local order, entry = ARGV[2 * index], ARGV[2 * index + 1]
  local known = false
  for _, other in ipairs(redis.call('ZRANGE', key, '[' .. order, '(' .. order .. '\255', 'BYLEX')) do
    if other == entry then
      known = true
    else
      changed = 1
      redis.call('ZREM', key, other)
    end
  end
  if entry ~= '' then
    if not known then
      changed = 1
      redis.call('ZADD', key, 0, entry)
    end
    if redis.call('PEXPIRETIME', key) < tonumber(ARGV[1]) then
      redis.call('PEXPIREAT', key, ARGV[1])
    end
  end
end
return changed
