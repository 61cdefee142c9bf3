-- Reads some parts and claims of a record, and its header.
-- ARGV  1 first number  2 maximum number of parts and of claims
-- Returns a page (prelude.lua), without fields if there is no record; UNKNOWNFORMAT for a record in another format.
local refusal = unknown_format(redis.call('HGET', KEYS[1], 'format'))
if refusal then
  return refusal
end
return page(tonumber(ARGV[1]), tonumber(ARGV[2]))
