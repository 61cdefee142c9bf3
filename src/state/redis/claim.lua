-- Records claims of parts of an open upload, if the caller owns it and the plan has all the parts: all claims or none,
-- except claims whose MD5 differs from the MD5 of the recorded part. If clients choose the part size, another MD5 of a
-- part that was signed in the present cut begins a new cut.
-- ARGV  1 owner  2 lowest number  3 highest number  4 updated_at  5 expires_at  6 time the record is removed (ms)
--       7… part number, slot…
-- Returns {fields and values of the record after the call, slots of the parts of those numbers and of the last committed
-- part, receipts that are kept beside them}, without fields if the owner has no such record; UNKNOWNFORMAT for a record
-- in another format.
local header =
  redis.call('HMGET', KEYS[1], 'format', 'owner', 'last_part', 'phase', 'committed', 'is_cut_by_client', 'cut')
local format, owner, last_part, phase, committed, is_cut_by_client, cut = unpack(header)
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
-- Whether a part has a claimed MD5, as far as it is known: see Parts::contradict.
local function fits(part, md5)
  local flags = string.byte(part)
  if bit.band(flags, HAS_MD5) ~= 0 then
    return string.sub(part, 10, 25) == md5
  end
  if string.byte(part, CRC64_MARK + 1) == 1 then
    -- The receipt is an ETag, and that an MD5.
    return bit.band(flags, HAS_LONG_RECEIPT + HAS_BLOCK_ID) == 0 and string.sub(part, 26, 41) == md5
  end
  return true
end
-- The flags and the MD5 of a claim.
local function kind_and_md5(claim)
  return string.byte(claim) or 0, string.sub(claim, 2, 17)
end
local function known_claim(number)
  return redis.call('GETRANGE', KEYS[3], (number - 1) * CLAIM, number * CLAIM - 1)
end
local function begins_cut(number, claim)
  local kind, md5 = kind_and_md5(claim)
  local known = known_claim(number)
  local known_kind, known_md5 = kind_and_md5(known)
  return kind == SIGNED_CLAIM and known_kind == SIGNED_CLAIM and string.byte(known, CLAIM) == cut and known_md5 ~= md5
end
cut, is_cut_by_client = tonumber(cut), is_cut_by_client == '1'
local is_recorded = phase == 'open' and tonumber(ARGV[2]) >= 1 and tonumber(ARGV[3]) <= tonumber(last_part)
if is_recorded and is_cut_by_client then
  for index = 7, #ARGV, 2 do
    if begins_cut(tonumber(ARGV[index]), ARGV[index + 1]) then
      cut = math.min(cut + 1, 255)
      redis.call('HSET', KEYS[1], 'cut', cut)
      break
    end
  end
  local unproven = redis.call('HGET', KEYS[1], 'unproven')
  for index = 7, #ARGV, 2 do
    if ARGV[index] == unproven and kind_and_md5(ARGV[index + 1]) == SIGNED_CLAIM then
      redis.call('HSET', KEYS[1], 'unproven', 0)
    end
  end
end
for index = 7, #ARGV, 2 do
  local number, claim = tonumber(ARGV[index]), ARGV[index + 1]
  local part = add(number)
  local kind, md5 = kind_and_md5(claim)
  if is_recorded then
    local known_kind, known_md5 = kind_and_md5(known_claim(number))
    local is_accepted = known_kind == 0
    if kind ~= BARE_CLAIM then
      local replaces = kind == SIGNED_CLAIM or known_kind ~= SIGNED_CLAIM
        or not is_cut_by_client and known_md5 ~= md5
      is_accepted = replaces and fits(part, md5)
    end
    if is_accepted then
      local signed_for = kind == SIGNED_CLAIM and cut or 0
      redis.call('SETRANGE', KEYS[3], (number - 1) * CLAIM, string.sub(claim, 1, 17) .. string.char(signed_for))
    end
  end
end
if is_recorded then
  redis.call('HSET', KEYS[1], 'updated_at', ARGV[4], 'expires_at', ARGV[5])
  expire_at(ARGV[6])
end
-- A compact record has no count.
add(tonumber(committed or 0))
return {fields(), table.concat(slots), receipts}
