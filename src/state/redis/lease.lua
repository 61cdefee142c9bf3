-- Acquires, renews or releases a lease, unless another holder has it.
-- KEYS  1 lease
-- ARGV  1 holder  2 duration (ms), 0 to release it
-- Returns 1 if the lease was free or the holder's, else 0.
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
