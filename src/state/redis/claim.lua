-- Records claims of parts of an open upload, if the caller owns it and the plan has all the parts: all claims or none,
-- except claims whose MD5 differs from the MD5 of the recorded part.
-- ARGV  1 owner  2 lowest number  3 highest number  4 updated_at  5 expires_at  6 time the record is removed (ms)
--       7… part number, slot…
-- Returns {fields and values of the record after the call, slots of the parts of those numbers and of the last committed
-- part, receipts that are kept beside them}, without fields if the owner has no such record; UNKNOWNFORMAT for a record
-- in another format.
local header = redis.call('HMGET', KEYS[1], 'format', 'owner', 'last_part', 'phase', 'committed')
local format, owner, last_part, phase, committed = unpack(header)
local refusal = unknown_format(format)
if refusal then
  return refusal
end
if owner ~= ARGV[1] then
  return {{}, '', {}}
end
local empty = string.rep('\0', PART)
local slots, receipts = {}, {}
local function add(number)
  local slot = number >= 1 and part_slots(number, number) or ''
  if #slot < PART then
    slot = empty
  end
  add_receipts(receipts, number, slot)
  slots[#slots + 1] = slot
  return slot
end
local is_recorded = phase == 'open' and tonumber(ARGV[2]) >= 1 and tonumber(ARGV[3]) <= tonumber(last_part)
for index = 7, #ARGV, 2 do
  local number, claim = tonumber(ARGV[index]), ARGV[index + 1]
  local part, at = add(number), (number - 1) * CLAIM
  if is_recorded then
    local is_accepted
    if string.byte(claim) == BARE_CLAIM then
      is_accepted = (string.byte(redis.call('GETRANGE', KEYS[3], at, at)) or 0) == 0
    else
      local has_md5 = bit.band(string.byte(part), HAS_MD5) ~= 0
      is_accepted = not has_md5 or string.sub(part, 10, 25) == string.sub(claim, 2)
    end
    if is_accepted then
      redis.call('SETRANGE', KEYS[3], at, claim)
    end
  end
end
if is_recorded then
  redis.call('HSET', KEYS[1], 'updated_at', ARGV[4], 'expires_at', ARGV[5])
  expire_at(ARGV[6])
end
add(tonumber(committed))
return {redis.call('HGETALL', KEYS[1]), table.concat(slots), receipts}
