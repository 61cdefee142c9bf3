-- Precedes every script that reads or writes a record, after a line that sets FORMAT to the format of records
-- (record.rs). Returns the error "UNKNOWNFORMAT <format> <key>" for a record in another format ("-": none), nil for one
-- in FORMAT and when there is no record.
local function unknown_format(key, format)
  if format == FORMAT or not format and redis.call('EXISTS', key) == 0 then
    return nil
  end
  return redis.error_reply('UNKNOWNFORMAT ' .. (format or '-') .. ' ' .. key)
end
