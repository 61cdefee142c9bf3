-- Reads the header of a record and its last committed part.
-- ARGV  1 for how many seconds a process watches the record from now on, or 0
-- Returns {fields and values of the record, slot of the part, its receipt if that is kept beside the slot}, without
-- fields if there is no record; UNKNOWNFORMAT for a record in another format.
local format, committed = unpack(redis.call('HMGET', KEYS[1], 'format', 'committed'))
local refusal = unknown_format(format)
if refusal then
  return refusal
end
local last, slots, receipts = tonumber(committed or 0), '', {}
if last > 0 then
  slots = part_slots(last, last)
  add_receipts(receipts, last, slots)
end
local time = format and ARGV[1] ~= '0' and now()
if time then
  -- Only a hint: a server with full memory refuses it.
  redis.pcall('HSET', KEYS[1], 'watched', time + ARGV[1])
end
return {fields(), slots, receipts}
