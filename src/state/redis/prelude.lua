-- Precedes every script that reads or writes a record, after lines that set FORMAT, the format of records (record.rs),
-- PART and CLAIM, the lengths of slots, HAS_MD5, HAS_LONG_RECEIPT, HAS_BLOCK_ID, BARE_CLAIM and SIGNED_CLAIM, their
-- flags, and CRC64_MARK (slot.rs).
-- KEYS  1 record  2 parts  3 claims  4 receipts  5 fingerprints of the tag

-- Returns the error "UNKNOWNFORMAT <format> <key>" for a record in another format ("-": none), nil for one in FORMAT and
-- when there is no record.
local function unknown_format(format)
  if format == FORMAT or not format and redis.call('EXISTS', KEYS[1]) == 0 then
    return nil
  end
  return redis.error_reply('UNKNOWNFORMAT ' .. (format or '-') .. ' ' .. KEYS[1])
end

-- Makes the record expire at a time (ms), and the fingerprints of its tag no earlier.
local function expire_at(time)
  for index = 1, 4 do
    redis.call('PEXPIREAT', KEYS[index], time)
  end
  if redis.call('PEXPIRETIME', KEYS[5]) < tonumber(time) then
    redis.call('PEXPIREAT', KEYS[5], time)
  end
end

-- The header as JSON, also of a compact record (compact.lua).
local function header_json()
  local json = redis.call('HGET', KEYS[1], 'record')
  if json then
    return json
  end
  local pieces = {}
  repeat
    local piece = redis.call('HGET', KEYS[1], 'r' .. #pieces + 1)
    pieces[#pieces + 1] = piece or nil
  until not piece
  return table.concat(pieces)
end

-- The fields and values of the record, those of a compact one with its header in one field.
local function fields()
  local all, pieces = redis.call('HGETALL', KEYS[1]), {}
  for index = 1, #all, 2 do
    local number = string.match(all[index], '^r(%d+)$')
    if number then
      pieces[tonumber(number)] = all[index + 1]
      -- A piece need not be valid text.
      all[index + 1] = ''
    end
  end
  if #pieces > 0 then
    all[#all + 1] = 'record'
    all[#all + 1] = table.concat(pieces)
  end
  return all
end

-- The slots of parts, fewer at the end of the list.
local function part_slots(first, last)
  return redis.call('GETRANGE', KEYS[2], (first - 1) * PART, last * PART - 1)
end

-- Whether there is a part with this number.
local function has(number)
  local first = (number - 1) * PART
  return (string.byte(redis.call('GETRANGE', KEYS[2], first, first)) or 0) ~= 0
end

-- Whether the part with this number has a checksum.
local function has_checksum(number)
  local slot = part_slots(number, number)
  local flags, mark = string.byte(slot, 1), string.byte(slot, CRC64_MARK + 1)
  return bit.band(flags or 0, HAS_MD5) ~= 0 or mark == 1
end

-- Adds number and receipt of each part of consecutive slots whose receipt is kept beside its slot.
local function add_receipts(receipts, first, slots)
  for at = 1, #slots, PART do
    if bit.band(string.byte(slots, at), HAS_LONG_RECEIPT) ~= 0 then
      local number = first + (at - 1) / PART
      receipts[#receipts + 1] = number
      receipts[#receipts + 1] = redis.call('HGET', KEYS[4], number) or ''
    end
  end
end

-- Some parts and claims of a record: {fields and values of the record, slots of parts, receipts that are kept beside
-- them, slots of claims, number of slots in the whole record}.
local function page(first, count)
  local slots, receipts = part_slots(first, first + count - 1), {}
  add_receipts(receipts, first, slots)
  local claims = redis.call('GETRANGE', KEYS[3], (first - 1) * CLAIM, (first + count - 1) * CLAIM - 1)
  local parts = math.ceil(redis.call('STRLEN', KEYS[2]) / PART)
  local claimed = math.ceil(redis.call('STRLEN', KEYS[3]) / CLAIM)
  return {fields(), slots, receipts, claims, math.max(parts, claimed)}
end

-- The numbers of the parts with a stored digest state.
local function digest_numbers()
  local numbers = {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    numbers[#numbers + 1] = tonumber(string.match(field, '^digest:(%d+)$'))
  end
  return numbers
end

-- The time in seconds; nil for a Redis user without the permission for TIME.
local function now()
  local time = redis.pcall('TIME')
  return time[1] and tonumber(time[1])
end

-- Reports a change of the record to the processes that watch it. The message is only a hint, so a Redis user without the
-- right to publish is accepted.
local function publish_change()
  local watched = redis.call('HGET', KEYS[1], 'watched')
  if watched and tonumber(watched) >= (now() or math.huge) then
    local prefix, id = string.match(KEYS[1], '^(.*)upload:{.*}:(.*)$')
    redis.pcall('PUBLISH', prefix .. 'changes', id)
  end
end
