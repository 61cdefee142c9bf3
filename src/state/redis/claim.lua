-- Records claims of parts of an open upload, if the caller owns it and the plan has all the parts: all claims or none,
-- except claims whose MD5 differs from the MD5 of the recorded part.
-- KEYS  1 record  2 fingerprints of the tag
-- ARGV  1 owner  2 lowest number  3 highest number  4 updated_at  5 expires_at  6 time the record is removed (ms)
--       7… part number, MD5 or ""…
-- Returns fields and values of the record after the call: its header, its last committed part and the parts of those
-- numbers. Returns an empty list if the owner has no such record, UNKNOWNFORMAT for a record in another format.
local names = {
  'format', 'owner', 'last_part', 'phase', 'committed', 'updated_at', 'expires_at', 'version', 'writer', 'record'
}
local header = redis.call('HMGET', KEYS[1], unpack(names))
local format, owner, last_part, phase, committed = unpack(header, 1, 5)
local refusal = unknown_format(KEYS[1], format)
if refusal then
  return refusal
end
if owner ~= ARGV[1] then
  return {}
end
-- The caller passes at most 1,000 numbers: Lua's stack holds fewer than 8,000 values for one command.
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
  header[6], header[7] = ARGV[4], ARGV[5]
  local changes = {'updated_at', ARGV[4], 'expires_at', ARGV[5]}
  for index = 7, #ARGV, 2 do
    local field, md5 = 'claim:' .. ARGV[index], ARGV[index + 1]
    if md5 == '' then
      redis.call('HSETNX', KEYS[1], field, md5)
    elseif not is_contradicted(recorded[(index - 3) / 2], md5) then
      changes[#changes + 1] = field
      changes[#changes + 1] = md5
    end
  end
  redis.call('HSET', KEYS[1], unpack(changes))
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
