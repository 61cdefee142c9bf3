-- Reads the header of a record and its last committed part.
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
return {redis.call('HGETALL', KEYS[1]), slots, receipts}
