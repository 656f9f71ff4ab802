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
return replies
