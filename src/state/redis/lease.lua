-- Takes or prolongs a lease that nobody else has, or gives it back.
-- KEYS  1 lease
-- ARGV  1 holder  2 how long it lasts (ms), 0 to give it back
-- Returns whether it was free or the holder's, as 1 or 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
