-- Notes what a client says of parts of its owner's open upload, if the plan has them all: all claims or none, but for
-- those that say another MD5 than the recorded part has.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 owner  2 lowest number  3 highest number  4 updated_at  5 expires_at  6 time the record is removed (ms)
--       7… part number, MD5 or ""…
-- Returns fields and values of the record as it now is: its header, its last committed part and the parts of those
-- numbers; none when there is no record of that owner.
local names = {'owner', 'last_part', 'phase', 'committed', 'updated_at', 'expires_at', 'version', 'writer', 'record'}
local header = redis.call('HMGET', KEYS[1], unpack(names))
local owner, last_part, phase, committed = unpack(header, 1, 4)
if owner ~= ARGV[1] then
  return {}
end
-- Of at most 1,000 numbers: Lua's stack has room for less than 8,000 values of one command.
local parts = {'part:' .. committed}
for index = 7, #ARGV, 2 do
  parts[#parts + 1] = 'part:' .. ARGV[index]
end
local recorded = redis.call('HMGET', KEYS[1], unpack(parts))
local function is_contradicted(part, md5)
  return md5 ~= '' and part and string.find(part, '"md5":"', 1, true)
    and not string.find(part, '"md5":"' .. md5 .. '"', 1, true)
end
if phase == 'open' and tonumber(ARGV[2]) >= 1 and tonumber(ARGV[3]) <= tonumber(last_part) then
  header[5], header[6] = ARGV[4], ARGV[5]
  local noted = {'updated_at', ARGV[4], 'expires_at', ARGV[5]}
  for index = 7, #ARGV, 2 do
    local field, md5 = 'claim:' .. ARGV[index], ARGV[index + 1]
    if md5 == '' then
      redis.call('HSETNX', KEYS[1], field, md5)
    elseif not is_contradicted(recorded[(index - 3) / 2], md5) then
      noted[#noted + 1] = field
      noted[#noted + 1] = md5
    end
  end
  redis.call('HSET', KEYS[1], unpack(noted))
  redis.call('PEXPIREAT', KEYS[1], ARGV[6])
  if redis.call('PEXPIRETIME', KEYS[2]) < tonumber(ARGV[6]) then
    redis.call('PEXPIREAT', KEYS[2], ARGV[6])
  end
end
local answer = {}
local function add(field, value)
  if value then
    answer[#answer + 1] = field
    answer[#answer + 1] = value
  end
end
for index, name in ipairs(names) do
  add(name, header[index])
end
for index, part in ipairs(parts) do
  add(part, recorded[index])
end
return answer
