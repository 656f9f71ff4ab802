-- Does the operations one after the other. What went wrong in one is its answer; the others are done all the same.
local replies = {}
while ARGV[at] do
  local name, n = take(), taken()
  local behind = at + n
  fallout = nil
  local ok, reply = pcall(function()
    local answer = ops[name]()
    joins.release()
    return answer
  end)
  at = behind
  if ok then
    replies[#replies + 1] = { reply, joins.told() }
  else
    local text = type(reply) == 'table' and (reply.err or cjson.encode(reply)) or tostring(reply)
    replies[#replies + 1] = { { 'error', name .. ': ' .. text }, '' }
  end
end

-- A channel: PUBLISH is a command of its own, so whoever watches it is told once for the whole batch.
if (next(woken) or woken_due) and call('ZCARD', P .. 'alive') > 1 then
  local told = { NODE, woken_due and N(woken_due) or '' }
  for queue, _ in pairs(woken) do told[#told + 1] = queue end
  call('PUBLISH', P .. 'wake', table.concat(told, '\n'))
end
return replies
