-- What time does: messages become due, expire, and are forgotten.

-- The first members of an index up to a score (absent: whatever), at most 'left'.
local function head(name, upto, left)
  if left <= 0 then return {} end
  if upto then return call('ZRANGEBYSCORE', P .. name, '-inf', N(upto), 'LIMIT', 0, left) end
  return call('ZRANGE', P .. name, 0, left - 1)
end

local function outlive(name, upto, left, now)
  local members = head(name, upto, left)
  for _, member in ipairs(members) do
    local r = row.read(row.id_of(member))
    if r then row.outlive(r, now) end
  end
  return left - #members
end

local function excess(name, most, left)
  return math.max(0, math.min(call('ZCARD', P .. name) - most, left))
end

function life.next_time()
  local due = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2]
  local ex = call('ZRANGE', P .. 'expires', 0, 0, 'WITHSCORES')[2]
  if not due or (ex and tonumber(ex) < tonumber(due)) then due = ex end
  return due and N(tonumber(due)) or ''
end

local function swept(queues, expired, more)
  local names = {}
  for queue, _ in pairs(queues) do names[#names + 1] = queue end
  table.sort(names)
  return { 'swept', names, expired, life.next_time(), more and 1 or 0 }
end

function ops.sweep()
  local now, age, count, dead_age, dead_count = taken(), taken(), taken(), taken(), taken()
  local left = RULES.SWEEP
  left = joins.sweep(now, left)
  local expired = {}
  for _, member in ipairs(head('expires', now, left)) do
    left = left - 1
    local r = row.read(row.id_of(member))
    if r and not FINAL[r.s] and not r.tk then
      row.finish(r, 'EXPIRED', OUTCOME.expired, now)
      expired[#expired + 1] = r.id
      life.finished(r, nil, now)
    end
  end
  local queues = {}
  for _, member in ipairs(head('due', now, left)) do
    left = left - 1
    local ready = row.ready_again(now)
    local r = row.read(row.id_of(member))
    r.s, r.due = 'WAITING', nil
    if r.c == '1' then r.rk = RULES.rank(ready, r.p) end
    queues[r.q] = true
    row.save(r)
  end
  left = life.take_over(queues, now, left)

  left = outlive('kept_own', now, left, now)
  left = outlive('kept_default', now - age, left, now)
  local n = excess('kept', count, left)
  outlive('kept', nil, n, now)
  left = left - n
  left = outlive('dead', now - dead_age, left, now)
  n = excess('dead', dead_count, left)
  outlive('dead', nil, n, now)
  left = left - n

  local ids = head('slim', now - RULES.ID_KEPT, left)
  n = excess('slim', count * RULES.IDS + #ids, left - #ids)
  for _, member in ipairs(head('slim', nil, #ids + n)) do
    local r = row.read(row.id_of(member))
    if r then row.drop(r) end
  end
  left = left - #ids - n
  left = joins.forget(now, count, left)
  left = left - lane.forget_rates(now, left)
  return swept(queues, expired, left == 0)
end

-- Brings messages back whose task is declared (again): a part, of ids that Rust chose by their task.
function ops.known()
  local queues = {}
  for _, id in ipairs(many()) do
    local r = row.read(id)
    if r and r.un then
      r.un = nil
      queues[r.q] = true
      row.save(r)
    end
  end
  return swept(queues, {}, false)
end

-- What is set aside: id and task, in order, behind a place.
function ops.unknown()
  local from, list = take(), { 'unknown' }
  for _, member in ipairs(call('ZRANGEBYSCORE', P .. 'unknown', '(' .. from, '+inf', 'LIMIT', 0, RULES.SWEEP)) do
    local id = row.id_of(member)
    list[#list + 1] = N(tonumber(string.sub(member, 1, 16), 16))
    list[#list + 1] = id
    list[#list + 1] = call('HGET', row.key(id), 't') or ''
  end
  return list
end

-- Node leases. A node that is not alive any more loses what it held: the messages wait again, what had started counts
-- as lost.

local function server_ms()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- This node lives: for so many milliseconds from now on. Answers whether it was alive in the eyes of others, whether
-- somebody took messages over from it since it said so last, and the server's clock.
function ops.alive()
  local life_ms, first = taken(), take() == '1'
  local at_ms = server_ms()
  local told = call('ZSCORE', P .. 'alive', NODE)
  if not first and call('HGET', P .. 'taken_over', NODE) then
    call('HDEL', P .. 'taken_over', NODE)
    call('ZADD', P .. 'alive', N(at_ms + life_ms), NODE)
    return { 'alive', 'lost', N(at_ms) }
  end
  if first then call('HDEL', P .. 'taken_over', NODE) end
  call('ZADD', P .. 'alive', N(at_ms + life_ms), NODE)
  life.renew()
  return { 'alive', told and 'known' or 'new', N(at_ms) }
end

-- This node ends in order: nobody needs to wait for its time to pass. What it still holds is given back.
function ops.gone()
  call('ZADD', P .. 'alive', 0, NODE)
  return { 'done' }
end

function life.take_over(queues, now, left)
  if left <= 0 then return left end
  local at_ms = server_ms()
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
      if call('EXISTS', P .. 'nl:' .. node, P .. 'in:' .. node) == 0 then call('ZREM', P .. 'alive', node) end
    end
  end
  return left
end
