-- What happens to one message: leased, started, ended, given back.

-- Outcomes that a store words; Rust gives them as templates, each with a mark for the id.
function life.first_state(m, now)
  if m.hd then return 'SCHEDULED', nil end
  if m.eta and m.eta > now then return 'SCHEDULED', m.eta end
  return 'WAITING', nil
end

-- Writes a row whose life is over, and does what follows; result: the JSON that later steps are given.
function life.finished(r, result, now)
  local flow, no, state = r.w, r.wn, r.s
  schedule.put_finished(r, now)
  if flow then
    local key = joins.by_id(flow)
    if key then joins.ended(key, no, state, result, now) end
  end
end

-- The row if it is held under this token, else nil and the answer.
function life.held(id, token)
  local r = row.read(id)
  if r and r.tk and N(r.tk) == token then return r end
  return nil, { 'stale', row.record(id) }
end

local APPLIED = { 'applied' }

function ops.lease()
  local queue, credit, now = take(), taken(), taken()
  local skip = {}
  for _, task in ipairs(many()) do skip[task] = true end
  if call('SISMEMBER', P .. 'paused', queue) == 1 or call('EXISTS', P .. 'purging:' .. queue) == 1 then
    return { 'leased', '', {} }
  end
  credit = math.max(1, math.min(credit, RULES.CREDIT))
  local plain = lane.fresh('ready:' .. queue, credit, now)
  local laned, opens = lane.pick(queue, credit, now, skip)
  local deliveries, served = {}, {}
  local i, j = 1, 1
  while #deliveries < credit do
    local p, l = plain[i], laned[j]
    local member
    if p and (not l or p[2] <= l[2]) then
      member, i = p[1], i + 1
    elseif l then
      member, j = l[1], j + 1
    else
      break
    end
    local r = row.read(row.id_of(member))
    if r.l and not served[row.lane_of(r)] then
      served[row.lane_of(r)] = true
      lane.served(queue, row.lane_of(r))
    end
    r.tk = row.next('token')
    r.nd = NODE
    if r.c == '1' then r.n = (r.n or 0) + 1 end
    r.c = '1'
    row.save(r)
    deliveries[#deliveries + 1] = row.record(r.id)
  end
  return { 'leased', opens and N(opens) or '', deliveries }
end

function ops.settle()
  local id, token, state, now = take(), take(), take(), taken()
  local due, outcome, lost, memory, queue = given(), take(), take() == '1', take() == '1', given()
  local result, expires_ms, a, k = given(), given(), given(), given()
  local takes = lane.takes()
  local follow_ups = claim.messages()
  local memos = many()
  local r, stale = life.held(id, token)
  if not r then return stale end
  lane.release(r, r.s == 'RUNNING', takes, now)
  if lost then r.lo = (r.lo or 0) + 1 end
  if state == 'RETRY' then
    r.s, r.tk, r.nd, r.due, r.c = 'RETRY', nil, nil, tonumber(due), '1'
    if memory then
      r.mr = (r.mr or 0) + 1
      if queue then r.q = queue end
    else
      r.r = (r.r or 0) + 1
    end
    -- The next attempt is called with something else.
    if a then call('HSET', row.key(id), 'a', a, 'k', k) end
    call('HSET', row.key(id), 'o', outcome)
    life.out(r)
    row.save(r)
  else
    -- A record that keeps no result: what follows is given it all the same.
    if r.cf and result then call('HSET', row.key(id), 'cr', result) end
    row.finish(r, state, outcome, now, expires_ms and tonumber(expires_ms))
    life.finished(r, result, now)
  end
  for _, entry in ipairs(follow_ups) do claim.store(entry, now) end
  life.remember(memos)
  return APPLIED
end

function ops.defer()
  local id, token, due, now = take(), take(), given(), taken()
  local counted, lost = take(), take() == '1'
  local takes = lane.takes()
  local r, stale = life.held(id, token)
  if not r then return stale end
  return life.give_back(r, due and tonumber(due), counted, lost, takes, now)
end

function life.give_back(r, due, counted, lost, takes, now)
  lane.release(r, r.s == 'RUNNING', takes, now)
  if lost then r.lo = (r.lo or 0) + 1 end
  r.tk, r.nd, r.c = nil, nil, counted
  r.due = due and due > now and due or nil
  if r.due then
    r.s = 'SCHEDULED'
  else
    r.s = 'WAITING'
    if lost then r.rk = RULES.rank(row.ready_again(now), r.p) end
  end
  row.save(r)
  return APPLIED
end

function ops.extend()
  local gone = { 'lost' }
  for _ = 1, taken() do
    local id, token = take(), take()
    if call('HGET', row.key(id), 'tk') ~= token then gone[#gone + 1] = id end
  end
  return gone
end

-- Ends a message that is not leased.
function life.revoke(id, now)
  local r = row.read(id)
  local free = r and (not r.tk or r.nd == life.OUTSIDE and life.fetched(r))
  if free and not FINAL[r.s] then
    row.finish(r, 'REVOKED', OUTCOME.revoked, now)
    life.finished(r, nil, now)
  end
end

-- Only the node that holds a message can end it: it is asked to.
function life.ask_to_cancel(id, node)
  if node and node ~= NODE then call('PUBLISH', P .. 'cancel:' .. node, id) end
end

function ops.revoke()
  local id, now = take(), taken()
  life.revoke(id, now)
  local held = call('HMGET', row.key(id), 'tk', 'nd')
  if held[1] then life.ask_to_cancel(id, held[2]) end
  return { 'record', row.record(id) }
end

-- Gives a finished row a new life; nil and why, where it may have none.
function life.revive(r, due, queue, now)
  local refused = joins.may_renew(r)
  if refused then return nil, refused end
  row.forget_life(r)
  r.r, r.mr = nil, nil
  if r.ex and r.ex <= now then r.ex = nil end
  local later = due and due > now and due or nil
  if later then
    r.eta = later
    if r.ex and r.ex <= later then r.ex = nil end
  end
  if queue then r.q = queue end
  row.begin(r, nil, later and 'SCHEDULED' or 'WAITING', later, now, true)
  joins.renewed(r, now)
  return r.q
end

-- 'taken' with the holder, 'refused' with why, or nothing.
function life.requeue(id, now)
  local r = row.read(id)
  if not r then return nil end
  if r.sl then return { 'gone', id } end
  if FINAL[r.s] then
    local holder = claim.in_the_way(r, now)
    if holder then return { 'taken', id, holder, row.record(holder) } end
    local _, refused = life.revive(r, nil, nil, now)
    if refused then return refused end
  end
  return nil
end

function ops.requeue()
  local id, now = take(), taken()
  return life.requeue(id, now) or { 'record', row.record(id) }
end

function ops.get() return { 'record', row.record(take()) } end

-- Into the unknown set of its queue, or out of it: its place and its attempt count stay.
function ops.move()
  local id, token, unknown = take(), given(), take() == '1'
  local r = row.read(id)
  local fits
  if not r then fits = false
  elseif not unknown then fits = r.un
  elseif token then fits = r.tk and N(r.tk) == token
  else fits = not r.tk and r.s == 'WAITING' end
  if not fits then return { 'stale', row.record(id) } end
  if r.tk then
    lane.release(r, true, {}, 0)
    r.tk, r.nd, r.c = nil, nil, '0'
  end
  r.s, r.un = 'WAITING', unknown and '1' or nil
  row.save(r)
  return APPLIED
end

-- The leases of this node, oldest token first.
function ops.recover()
  local list = { 'deliveries' }
  for _, member in ipairs(call('ZRANGE', P .. 'nl:' .. NODE, 0, -1)) do
    list[#list + 1] = row.record(row.id_of(member))
  end
  return list
end

function ops.queue_state()
  local queue, paused = take(), take() == '1'
  call(paused and 'SADD' or 'SREM', P .. 'paused', queue)
  return { 'done' }
end

-- With what waits in kombu's lists of these queues, and what is on the express way.
function ops.count()
  local counts = call('HGETALL', P .. 'counts')
  for _, queue in ipairs(many()) do
    local waiting = 0
    for _, key in ipairs(life.lists(queue)) do waiting = waiting + call('LLEN', key) end
    counts[#counts + 1] = queue .. '\0w'
    counts[#counts + 1] = waiting
  end
  for _, node in ipairs(call('ZRANGE', P .. 'alive', 0, -1)) do
    for _, value in ipairs(call('HVALS', P .. 'in:' .. node)) do
      counts[#counts + 1] = life.whose(value) .. '\0l'
      counts[#counts + 1] = 1
    end
  end
  return { 'counts', counts, call('SMEMBERS', P .. 'paused') }
end

-- A part of a purge: what was accepted after 'from' up to 'upto' (absent: what is there now).
function ops.purge()
  local queue, now, from, upto = take(), taken(), taken(), given()
  if not upto then
    upto = call('HGET', P .. 'n', 'seq') or '0'
    call('SET', P .. 'purging:' .. queue, '1', 'EX', 60)
  end
  local members = call('ZRANGEBYSCORE', P .. 'all', '(' .. N(from), upto, 'LIMIT', 0, RULES.SWEEP)
  local ended = 0
  for _, member in ipairs(members) do
    from = tonumber(string.sub(member, 1, 16), 16)
    local id = row.id_of(member)
    local v = call('HMGET', row.key(id), 'q', 's', 'tk', 'nd')
    if v[1] == queue and not FINAL[v[2]] and not v[3] then
      life.revoke(id, now)
      ended = ended + 1
    elseif v[1] == queue and v[3] and v[2] ~= 'RUNNING' and v[4] ~= NODE then
      -- It waits at another node, which counts it as one of this purge.
      life.ask_to_cancel(id, v[4])
      ended = ended + 1
    end
  end
  local more = #members == RULES.SWEEP
  if not more then call('DEL', P .. 'purging:' .. queue) end
  return { 'purged', ended, more and N(from) or '', upto }
end

-- Facts: key, value, key, value; an empty value forgets.
function life.remember(memos)
  for i = 1, #memos, 2 do
    local key, value = memos[i], memos[i + 1]
    if string.sub(value, 1, 1) == '=' then
      call('HSET', P .. 'memos', key, string.sub(value, 2))
      call('ZADD', P .. 'memo_keys', 0, key)
    else
      call('HDEL', P .. 'memos', key)
      call('ZREM', P .. 'memo_keys', key)
    end
  end
end

function ops.remember()
  life.remember(many())
  return { 'done' }
end

function ops.recall()
  local prefix, after, most = take(), take(), taken()
  local from = '[' .. prefix
  if after >= prefix and after ~= '' then from = '(' .. after end
  local list = { 'memos' }
  for _, key in ipairs(call('ZRANGEBYLEX', P .. 'memo_keys', from, '[' .. prefix .. '\255', 'LIMIT', 0, most)) do
    list[#list + 1] = key
    list[#list + 1] = call('HGET', P .. 'memos', key)
  end
  return list
end
