-- The nodes: who has which name, until when each is believed to live, and what they tell of themselves.
-- A node that is not alive any more loses what it held: the messages wait again, what had started counts as lost.

local nodes = {}

function nodes.server_ms()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- This node lives: for so many milliseconds from now on. 'me' is who it is beside its name: a name belongs to one
-- process at a time, so where another one has it and is believed to live, nothing is done. Answers whether this node was
-- alive in the eyes of others, or whether somebody took messages over from it since it said so last.
function ops.alive()
  local life_ms, first, me = taken(), take() == '1', take()
  local at_ms = nodes.server_ms()
  local holder = call('HGET', P .. 'names', NODE)
  local told = call('ZSCORE', P .. 'alive', NODE)
  if holder and holder ~= me and told and tonumber(told) > at_ms then
    return { 'alive', 'held', told, N(tonumber(told) - at_ms), call('HGET', P .. 'nodes', NODE) or '' }
  end
  if holder ~= me then call('HSET', P .. 'names', NODE, me) end
  call('ZADD', P .. 'alive', N(at_ms + life_ms), NODE)
  life.renew()
  local lost = call('HDEL', P .. 'taken_over', NODE) == 1 and not first
  return { 'alive', lost and 'lost' or told and 'known' or 'new' }
end

-- This node ends in order: nobody needs to wait for its time to pass. What it still holds is given back.
function ops.gone()
  if call('HGET', P .. 'names', NODE) == take() then
    call('ZADD', P .. 'alive', 0, NODE)
    call('HDEL', P .. 'names', NODE)
  end
  return { 'done' }
end

-- The ends that a node did not tell are this node's now. Where it lives after all, both tell them: a result is written
-- once, and ids of what follows are known.
local function inherit(node)
  for _ = 1, RULES.SWEEP do
    if not call('LMOVE', P .. 'out:' .. node, P .. 'out:' .. NODE, 'LEFT', 'RIGHT') then break end
  end
end

function life.take_over(queues, now, left)
  if left <= 0 then return left end
  local at_ms = nodes.server_ms()
  for _, node in ipairs(call('ZRANGEBYSCORE', P .. 'alive', '-inf', N(at_ms), 'LIMIT', 0, 10)) do
    if node ~= NODE then
      local members = head('nl:' .. node, nil, left)
      for _, member in ipairs(members) do
        local r = row.read(row.id_of(member))
        local started = r.s == 'RUNNING'
        call('HSET', P .. 'taken_over', node, N(at_ms))
        life.give_back(r, nil, started and '1' or '0', started, {}, now)
        queues[r.q] = true
      end
      left = left - #members
      if call('EXISTS', P .. 'in:' .. node) == 1 then
        call('HSET', P .. 'taken_over', node, N(at_ms))
        left = life.take_over_in(node, left)
      end
      inherit(node)
      if call('EXISTS', P .. 'nl:' .. node, P .. 'in:' .. node, P .. 'out:' .. node) == 0 then
        call('ZREM', P .. 'alive', node)
        call('HDEL', P .. 'names', node)
      end
    end
  end
  return left
end

-- Tells of a node, and lists those that told of themselves within a day.
function ops.node()
  local name, announce, now = take(), take(), taken()
  call('HSET', P .. 'nodes', name, N(now) .. ' ' .. announce)
  local list = {}
  local all = call('HGETALL', P .. 'nodes')
  for i = 1, #all, 2 do
    local seen, told = string.match(all[i + 1], '^(%-?%d+) (.*)$')
    if now - tonumber(seen) > RULES.NODE_KEPT then
      call('HDEL', P .. 'nodes', all[i])
    else
      list[#list + 1] = { all[i], told, seen }
    end
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  table.insert(list, 1, 'nodes')
  return list
end

-- Something that needs memory: refused while there is none.
function ops.probe()
  call('SET', P .. 'none', '1', 'PX', 1)
  return { 'done' }
end

-- When taskd's keys began to be here: another answer than before means that they were gone meanwhile.
function ops.born()
  call('HSETNX', P .. 'n', 'born', N(nodes.server_ms()))
  return { 'born', call('HGET', P .. 'n', 'born') }
end
