-- Lanes, rates and places; what the model answers alike. A lane is what waits of one task in one queue under one value
-- of its limits' argument, named TASK\0VALUE. Open ones stand in lanes:QUEUE by their turn; closed ones in closed:QUEUE
-- with what they wait for, and, where that is a time, in opens:QUEUE.

function lane.enter(r)
  local name = row.lane_of(r)
  if call('ZSCORE', P .. 'lanes:' .. r.q, name) then return end
  if call('HEXISTS', P .. 'closed:' .. r.q, name) == 1 then return end
  call('ZADD', P .. 'lanes:' .. r.q, row.next('turn'), name)
end

-- A lease served this lane: it goes behind the others.
function lane.served(queue, name)
  if call('ZSCORE', P .. 'lanes:' .. queue, name) then
    call('ZADD', P .. 'lanes:' .. queue, row.next('turn'), name)
  end
end

function lane.read(queue, name)
  local text = call('HGET', P .. 'closed:' .. queue, name)
  if not text then return nil end
  local turn, since, open_at, key = string.match(text, '^(%S+) (%S+) (%S+) (.*)$')
  return {
    turn = tonumber(turn), since = tonumber(since), open_at = open_at ~= '-' and tonumber(open_at) or nil,
    key = key ~= '' and key or nil,
  }
end

function lane.open(queue, name)
  local l = lane.read(queue, name)
  if not l then return end
  call('HDEL', P .. 'closed:' .. queue, name)
  call('ZREM', P .. 'opens:' .. queue, name)
  call('ZREM', P .. 'since:' .. queue, name)
  if l.key then call('SREM', P .. 'blocked:' .. l.key, queue .. '\0' .. name) end
  if call('HLEN', P .. 'closed:' .. queue) == 0 then call('SREM', P .. 'closed_queues', queue) end
  call('ZADD', P .. 'lanes:' .. queue, l.turn, name)
end

-- Closes a lane that is there, until a time or until a place under this key is released.
function lane.close(queue, name, now, key, open_at)
  lane.open(queue, name)
  local turn = call('ZSCORE', P .. 'lanes:' .. queue, name)
  if not turn then return end
  call('ZREM', P .. 'lanes:' .. queue, name)
  local text = turn .. ' ' .. N(now) .. ' ' .. (open_at and N(open_at) or '-') .. ' ' .. (open_at and '' or key)
  call('HSET', P .. 'closed:' .. queue, name, text)
  call('SADD', P .. 'closed_queues', queue)
  if open_at then
    call('ZADD', P .. 'opens:' .. queue, N(open_at), name)
    call('ZADD', P .. 'since:' .. queue, N(now), name)
  else
    call('SADD', P .. 'blocked:' .. key, queue .. '\0' .. name)
  end
end

-- The first messages of an index that have not expired: { member, rank }.
function lane.fresh(name, most, now)
  local list, from = {}, 0
  while #list < most do
    local part = call('ZRANGE', P .. name, from, from + most - 1, 'WITHSCORES')
    for i = 1, #part, 2 do
      local ex = call('HGET', row.key(row.id_of(part[i])), 'ex')
      if (not ex or tonumber(ex) > now) and #list < most then
        list[#list + 1] = { part[i], tonumber(part[i + 1]) }
      end
    end
    if #part < 2 * most then break end
    from = from + most
  end
  return list
end

-- What a lease hands out of the open lanes, in order, and when the next closed one opens.
function lane.pick(queue, credit, now, skip)
  local lanes = P .. 'lanes:' .. queue
  local closed = call('EXISTS', P .. 'opens:' .. queue) == 1
  if closed then
    -- One that was closed later than now was closed before the clock went back.
    local due = call('ZRANGEBYSCORE', P .. 'opens:' .. queue, '-inf', N(now))
    for _, name in ipairs(due) do lane.open(queue, name) end
    due = call('ZRANGEBYSCORE', P .. 'since:' .. queue, '(' .. N(now), '+inf')
    for _, name in ipairs(due) do lane.open(queue, name) end
  end
  if call('EXISTS', lanes) == 0 then return {}, lane.opens(queue) end
  for _ = 1, RULES.PASSES do
    local names, from, cut = {}, 0, false
    -- One more than can be served is looked for: without it there is nothing to come back for.
    while not cut do
      local part = call('ZRANGE', lanes, from, from + credit)
      for _, name in ipairs(part) do
        local task = string.match(name, '^[^%z]*')
        if not skip[task] then
          if #names < credit then names[#names + 1] = name else cut = true end
        end
      end
      if #part <= credit then break end
      from = from + credit + 1
    end
    local heads, longest, dropped = {}, 0, false
    for i, name in ipairs(names) do
      heads[i] = lane.fresh('wl:' .. queue .. '\0' .. name, credit, now)
      longest = math.max(longest, #heads[i])
      if call('EXISTS', P .. 'wl:' .. queue .. '\0' .. name) == 0 then
        call('ZREM', lanes, name)
        dropped = true
      end
    end
    local picks = {}
    for n = 1, longest do
      for _, head in ipairs(heads) do
        if head[n] and #picks < credit then picks[#picks + 1] = head[n] end
      end
      if #picks >= credit then break end
    end
    if #picks >= credit or not cut then return picks, lane.opens(queue) end
    if not dropped then return picks, now end
  end
  return {}, now
end

function lane.opens(queue)
  local first = call('ZRANGE', P .. 'opens:' .. queue, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end

-- Reads takes: each 'rate' KEY INTERVAL BURST or 'place' KEY LIMIT 0, and whether its key is that of one lane.
function lane.takes()
  local list = {}
  for i = 1, taken() do
    list[i] = { kind = take(), key = take(), n = taken(), burst = taken(), value = take() == '1' }
  end
  return list
end

-- limit.rs: the generic cell rate algorithm, in microseconds.
function lane.gcra(tat, now, interval, burst)
  local us, full = now * 1000, interval * math.max(burst, 1)
  tat = math.min(math.max(tat or us, us), us + full)
  local nxt = tat + interval
  if nxt - us <= full then return nxt end
  return nil, math.floor((nxt - full + 999) / 1000)
end
function lane.charge(tat, now, interval) return math.max(tat or 0, now * 1000) + interval end
function lane.tat(key)
  local tat = call('ZSCORE', P .. 'rates', key)
  return tat and tonumber(tat)
end

-- The first of these that is not free, and when it is.
function lane.missing(takes, now)
  for _, t in ipairs(takes) do
    if t.kind == 'rate' then
      local tat = lane.tat(t.key)
      local most = now * 1000 + t.n * math.max(t.burst, 1)
      if tat and tat > most then
        tat = most
        call('ZADD', P .. 'rates', N(tat), t.key)
      end
      local _, free = lane.gcra(tat, now, t.n, t.burst)
      if free then return t, free end
    elseif call('SCARD', P .. 'places:' .. t.key) >= t.n then
      return t, nil
    end
  end
  return nil
end

-- Takes all of these, which are free or were taken before this.
function lane.grab(r, takes, now, sure)
  local tats, held = {}, r.pk and { r.pk } or {}
  for _, t in ipairs(takes) do
    if t.kind == 'rate' then
      local tat = lane.tat(t.key)
      local nxt = not sure and lane.gcra(tat, now, t.n, t.burst) or nil
      nxt = nxt or lane.charge(tat, now, t.n)
      call('ZADD', P .. 'rates', N(nxt), t.key)
      tats[#tats + 1] = N(nxt)
    else
      call('SADD', P .. 'places:' .. t.key, row.member(r))
      held[#held + 1] = t.key
    end
  end
  if #held > 0 then r.pk = table.concat(held, '\0') end
  return tats
end

-- The attempt of this row has ended: what it held is free, and the lanes that waited for it are open.
-- takes: what it took, counted here where its start was not recorded.
function lane.release(r, started, takes, now)
  if not started then
    for _, t in ipairs(takes) do
      if t.kind == 'rate' then
        call('ZADD', P .. 'rates', N(lane.charge(lane.tat(t.key), now, t.n)), t.key)
      end
    end
  end
  if not r.pk then return end
  for key in string.gmatch(r.pk, '[^%z]+') do
    call('SREM', P .. 'places:' .. key, row.member(r))
    for _, name in ipairs(call('SMEMBERS', P .. 'blocked:' .. key)) do
      local cut = string.find(name, '\0', 1, true)
      lane.open(string.sub(name, 1, cut - 1), string.sub(name, cut + 1))
    end
  end
  r.pk = nil
end

function ops.start()
  local id, token, now, sure = take(), take(), taken(), take() == '1'
  local takes = lane.takes()
  local r, stale = life.held(id, token)
  if not r then return stale end
  -- A repeat under the same token changes nothing.
  if r.s == 'RUNNING' then return { 'applied' } end
  if not sure then
    local t, free = lane.missing(takes, now)
    if t then return lane.set_back(r, r.l, t, free, now) end
  end
  r.s, r.st = 'RUNNING', now
  local tats = lane.grab(r, takes, now, sure)
  row.save(r)
  if #takes == 0 then return { 'applied' } end
  return { 'took', unpack(tats) }
end

function ops.aside()
  local id, token, now, value = take(), take(), taken(), given()
  local blocked = lane.takes()
  local r, stale = life.held(id, token)
  if not r then return stale end
  if r.s == 'RUNNING' then return { 'stale', row.record(id) } end
  local t, free = lane.missing(blocked, now)
  -- A lane without a value is given as the mark alone.
  return lane.set_back(r, value and string.sub(value, 2), t, free, now)
end

-- Gives a message back into its lane, which is closed where something of its own is missing.
function lane.set_back(r, value, t, free, now)
  r.tk, r.nd, r.s, r.c, r.l = nil, nil, 'WAITING', '0', value
  row.save(r)
  if not t then return { 'applied' } end
  if t.value and r.l then lane.close(r.q, row.lane_of(r), now, t.key, free) end
  return { 'closed', t.key, free and N(free) or '' }
end

-- Opens closed lanes: those of one task, or all; a bounded number in one step.
function ops.open()
  local task = given()
  local queues, opened = {}, 0
  for _, queue in ipairs(call('SMEMBERS', P .. 'closed_queues')) do
    for _, name in ipairs(call('HKEYS', P .. 'closed:' .. queue)) do
      if opened < RULES.SWEEP and (not task or string.match(name, '^[^%z]*') == task) then
        lane.open(queue, name)
        if queues[#queues] ~= queue then queues[#queues + 1] = queue end
        opened = opened + 1
      end
    end
  end
  table.sort(queues)
  return { 'swept', queues, {}, '', opened == RULES.SWEEP and 1 or 0 }
end

-- Forgets rates that say nothing any more; answers how many.
function lane.forget_rates(now, left)
  local past = call('ZRANGEBYSCORE', P .. 'rates', '-inf', N(now * 1000), 'LIMIT', 0, left)
  for _, key in ipairs(past) do call('ZREM', P .. 'rates', key) end
  return #past
end
