-- Schedules: what becomes of planned times, and of the messages and workflows that they stored. What is known of a
-- schedule is the hash schedule:NAME; its planned times stand in ticks:NAME; what it fired and is not over in
-- fires:NAME by order.

function schedule.key(name) return P .. 'schedule:' .. name end

function schedule.make(name, upto)
  local key = schedule.key(name)
  if call('EXISTS', key) == 0 then
    call('HSET', key, 'until', N(upto))
    call('ZADD', P .. 'schedules', 0, name)
  end
  return key
end

-- A planned time is done with; id: what it stored, where it did.
function schedule.tick(name, planned, pause_after, id, is_flow)
  local key = schedule.make(name, planned)
  call('HSET', key, 'until', N(planned))
  if pause_after then call('HSET', key, 'pause_after', pause_after) else call('HDEL', key, 'pause_after') end
  if id then
    call('HSET', key, 'fired', N(planned), 'id', id, 'workflow', is_flow and '1' or '0')
    call('HDEL', key, 'state')
  end
end

-- A message or a workflow of it ended.
function schedule.ended(name, id, state, now)
  local key = schedule.make(name, now)
  call('HSET', key, 'ended', N(now))
  if call('HGET', key, 'id') == id then call('HSET', key, 'state', state) end
  if state == 'SUCCESS' then
    call('HSET', key, 'failures', 0)
  elseif state == 'FAILURE' or state == 'DEAD' then
    local failures = call('HINCRBY', key, 'failures', 1)
    local most = call('HGET', key, 'pause_after')
    if most and failures >= tonumber(most) then call('HSETNX', key, 'paused', 'failures') end
  end
end

-- What a schedule fired and is not over, oldest first.
function schedule.fires(name)
  local list = {}
  for _, member in ipairs(call('ZRANGE', P .. 'fires:' .. name, 0, -1)) do
    local rest = row.id_of(member)
    if string.sub(member, 17, 17) == '/' then
      local head = joins.fire(rest)
      list[#list + 1] = { id = head.id, flow = rest, canceled = head.canceled, held = head.held }
    else
      local v = call('HMGET', row.key(rest), 'tk', 'hd')
      list[#list + 1] = { id = rest, leased = v[1] and true, held = v[2] and true }
    end
  end
  return list
end

local function held_of(live)
  local n = 0
  for _, fire in ipairs(live) do if fire.held then n = n + 1 end end
  return n
end

-- The ids of messages, and those of workflows.
local function named(fires)
  local messages, flows = {}, {}
  for _, fire in ipairs(fires) do
    local list = fire.flow and flows or messages
    if #list < RULES.RUNNING then list[#list + 1] = fire.id end
  end
  return messages, flows
end

local function is_recorded(name, planned, now)
  local key = P .. 'ticks:' .. name
  if call('ZSCORE', key, N(planned)) then return true end
  if call('ZCARD', key) < RULES.TICKS then return false end
  local first = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  return planned < first and first <= now + RULES.WRONG_CLOCK
end

local function record(name, planned, now)
  local key = P .. 'ticks:' .. name
  if call('ZCARD', key) >= RULES.TICKS then
    local last = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    if last > now + RULES.WRONG_CLOCK then call('ZPOPMAX', key) else call('ZPOPMIN', key) end
  end
  call('ZADD', key, N(planned), N(planned))
end

-- What runs of a schedule and came before this fire of it: leased messages, and workflows.
local function before(name, id)
  local list = {}
  for _, fire in ipairs(schedule.fires(name)) do
    if fire.id == id then return named(list) end
    if fire.leased or fire.flow then list[#list + 1] = fire end
  end
  return {}, {}
end

local function ticked(id, became, detail, messages, flows, revoked)
  return { 'ticked', id, became, detail or {}, messages or {}, flows or {}, revoked or {} }
end

function ops.tick()
  local name, planned, now, overlap, pause_after = take(), taken(), taken(), take(), given()
  local lap, id, is_flow = take(), take(), take() == '1'
  local rooms = many()
  local what
  if is_flow then what = joins.read_launch() else what = claim.messages() end
  local key = schedule.key(name)
  local known_lap = call('HGET', key, 'lap') or '0'
  if known_lap ~= lap then return { 'lap', known_lap } end
  if is_recorded(name, planned, now) then
    if overlap ~= 'replace' then return ticked(id, 'known') end
    local messages, flows = before(name, id)
    return ticked(id, 'known', nil, messages, flows)
  end
  if call('HEXISTS', key, 'paused') == 1 then return ticked(id, 'paused') end
  record(name, planned, now)
  local live = schedule.fires(name)
  local skip
  if overlap == 'skip' and live[1] then
    skip = { 'running', live[1].id }
  elseif overlap == 'queue' and live[1] and held_of(live) >= RULES.HELD then
    skip = { 'too_many' }
  else
    local added = {}
    for i = 1, #rooms, 2 do
      local queue, most = rooms[i], tonumber(rooms[i + 1])
      added[queue] = (added[queue] or 0) + 1
      if not skip and row.length(queue) + added[queue] > most then skip = { 'full', queue, N(most) } end
    end
  end
  if skip or call('EXISTS', row.key(id)) == 1 or joins.by_id(id) then
    schedule.tick(name, planned, pause_after)
    if skip then return ticked(id, 'skipped', skip) end
    return ticked(id, 'known')
  end
  local revoked = {}
  if overlap == 'replace' then
    -- The latest first, so that nothing is released on the way.
    for i = #live, 1, -1 do
      local fire = live[i]
      local r = not fire.flow and not fire.leased and row.read(fire.id)
      if fire.flow then
        joins.cancel(fire.id, 0, now)
      elseif r then
        revoked[#revoked + 1] = fire.id
        row.finish(r, 'REVOKED', OUTCOME.superseded, now)
        life.finished(r, nil, now)
      end
    end
  end
  local others = schedule.fires(name)
  local waits = overlap ~= 'allow' and #others > 0
  schedule.tick(name, planned, pause_after, id, is_flow)
  if is_flow then
    joins.launch(what, waits, now)
  else
    what[1].m.hd = waits and '1' or nil
    claim.store(what[1], now)
  end
  local became
  for _, fire in ipairs(schedule.fires(name)) do
    if fire.id == id then became = waits and 'held' or 'fired' end
  end
  local messages, flows
  if overlap == 'replace' then messages, flows = named(others) end
  if not became then return ticked(id, 'skipped', { 'key_held' }, messages, flows, revoked) end
  return ticked(id, became, nil, messages, flows, revoked)
end

-- Stores a message for a time, once.
function ops.once()
  local name, planned = take(), taken()
  local entry = claim.messages()[1]
  local key = P .. 'ticks:' .. name
  if call('ZSCORE', key, N(planned)) then return { 'once', 0 } end
  local n = call('ZCARD', key)
  if n >= RULES.TICKS and planned < tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) then return { 'once', 0 } end
  call('ZADD', key, N(planned), N(planned))
  if n >= RULES.TICKS then call('ZPOPMIN', key) end
  claim.store(entry, tonumber(entry.m.enq))
  return { 'once', 1 }
end

-- Writes a row that just ended, with what follows from that for its schedule.
function schedule.put_finished(r, now)
  local name = r.fs
  row.save(r)
  if name then schedule.fire_over(name, r.id, r.s, now) end
end

-- What a schedule fired is over: the next one that waits for that goes on.
function schedule.fire_over(name, id, state, now)
  schedule.ended(name, id, state, now)
  local live = schedule.fires(name)
  local first = live[1]
  if not first or held_of(live) ~= #live then return end
  if first.flow then return joins.set_free(first.flow, now) end
  local r = row.read(first.id)
  local ready = row.ready_again(now)
  r.s, r.hd, r.rk = 'WAITING', nil, RULES.rank(ready, r.p)
  row.save(r)
end

function ops.schedules()
  local after, most = take(), taken()
  local list = { 'schedules' }
  local from = after == '' and '-' or '(' .. after
  for _, name in ipairs(call('ZRANGEBYLEX', P .. 'schedules', from, '+', 'LIMIT', 0, most)) do
    local live, ending = schedule.fires(name), {}
    for _, fire in ipairs(live) do
      if fire.canceled and #ending < RULES.RUNNING then ending[#ending + 1] = fire.id end
    end
    list[#list + 1] = { name, call('HGETALL', schedule.key(name)), #live, held_of(live), ending }
  end
  return list
end

-- Changes: a word, a name and what it takes; see Change in model/schedule.rs.
function ops.schedule()
  for _ = 1, taken() do
    local what, name, upto, extra = take(), take(), take(), take()
    local key = schedule.key(name)
    if what == 'forget' then
      if call('EXISTS', P .. 'fires:' .. name) == 0 then
        call('DEL', key, P .. 'ticks:' .. name)
        call('ZREM', P .. 'schedules', name)
      end
    else
      schedule.make(name, 0)
      call('HSET', key, 'until', upto)
      if what == 'plan' then
        call('HSET', key, 'rule', extra)
      elseif what == 'pause' then
        -- Whoever pauses what paused by itself meant it: a resume is theirs, too.
        if extra == '1' then call('HSET', key, 'paused', 'asked') else call('HDEL', key, 'paused') end
        call('HSET', key, 'failures', 0)
      elseif what == 'rewind' then
        call('ZREMRANGEBYSCORE', P .. 'ticks:' .. name, '(' .. upto, '+inf')
        call('HINCRBY', key, 'lap', 1)
      end
    end
  end
  return { 'done' }
end
