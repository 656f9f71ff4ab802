-- Celery's side: kombu's lists are read, results are written where Celery's clients look for them.
--
-- A message of a client is moved in one step from its list into kombu's unacked (so that it is never nowhere) and into
-- in:NODE, then read in Rust, and stored as a row with its envelope (ce) in the step that takes it out of both. What
-- ends of it is put into out:NODE in the step of its end; whoever empties that writes the result and sends what
-- follows, which may be done twice: a result is written once, and ids of what follows are known.

-- The priority lists of kombu: QUEUE, and QUEUE with two control characters and the step behind it.
function life.lists(queue)
  local list = {}
  for i, step in ipairs({ '', '\6\0223', '\6\0226', '\6\0229' }) do list[i] = K .. queue .. step end
  return list
end

-- Takes messages off the lists of a queue, those of the lowest step first.
function ops.take_in()
  local queue, most = take(), taken()
  local list = { 'taken_in' }
  local time = call('TIME')
  local seconds = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
  for _, key in ipairs(life.lists(queue)) do
    while #list <= most do
      local raw = call('RPOP', key)
      if not raw then break end
      local tag = string.match(raw, '"delivery_tag": ?"([^"\\]+)"')
      -- One without a tag is nobody's to take back: it gets one of its own.
      tag = tag or ('taskd-' .. redis.sha1hex(raw))
      call('ZADD', K .. 'unacked_index', seconds, tag)
      call('HSET', K .. 'unacked', tag, '[' .. raw .. ', "", ' .. cjson.encode(queue) .. ']')
      call('HSET', P .. 'in:' .. NODE, tag, queue)
      list[#list + 1] = { tag, raw }
    end
  end
  return list
end

-- What of in:NODE says of a message: its queue, its id, its token ('lost': its node is gone) and when it started.
function life.whose(value)
  local queue, id, token, started = string.match(value, '^([^%z]*)%z([^%z]*)%z([^%z]*)%z(.*)$')
  if not queue then return value, '', '', '' end
  return queue, id, token, started
end

-- What was taken off the lists and did not end: of this node (all of it, or what nobody has in hand), or of others.
-- Each with its node, and what is in kombu's unacked.
function ops.taken_in()
  local what, id = take(), given()
  local list, nodes = { 'taken_in' }, { NODE }
  if id and call('SISMEMBER', P .. 'flying', id) == 0 then return list end
  if what == 'nodes' then nodes = call('ZRANGE', P .. 'alive', 0, -1) end
  for _, node in ipairs(nodes) do
    local all = call('HGETALL', P .. 'in:' .. node)
    for i = 1, #all, 2 do
      local queue, its, token, started = life.whose(all[i + 1])
      local meant = not id or id == its
      if what == 'left' then meant = token == '' or token == 'lost' elseif what == 'nodes' then meant = meant and its ~= '' end
      if meant then
        local entry = call('HGET', K .. 'unacked', all[i])
        if entry then list[#list + 1] = { node, all[i], queue, token, started, entry }
        else
          call('HDEL', P .. 'in:' .. node, all[i])
          if its ~= '' then call('SREM', P .. 'flying', its) end
        end
      end
    end
  end
  -- Nobody has it.
  if id and #list == 1 and what == 'nodes' then call('SREM', P .. 'flying', id) end
  return list
end

local function acked(node, tag)
  call('ZREM', K .. 'unacked_index', tag)
  call('HDEL', K .. 'unacked', tag)
  call('HDEL', P .. 'in:' .. node, tag)
end

-- A row that was just stored is one that a node has in hand, or had.
function life.in_hand(id, node, token, started, now)
  local r = row.read(id)
  if not r or r.s ~= 'WAITING' or r.tk then return end
  r.n = 1
  if token == 'lost' then
    r.lo, r.rk = 1, RULES.rank(row.ready_again(now), r.p)
  else
    r.tk, r.nd = tonumber(token), node
    if started then r.s, r.st = 'RUNNING', tonumber(started) end
  end
  row.save(r)
end

-- A task of an app may put another message in its own place, under its id: one of a higher number than is there, or any
-- where it ended without a result of its own.
function life.replaces(there, m)
  local kept = call('HMGET', row.key(m.id), 'rn', 'o')
  if tonumber(m.rn or 0) > tonumber(kept[1] or 0) then return true end
  return FINAL[there.s] and kept[2] and string.find(kept[2], '"ignored":true', 1, true)
end

-- What has ended makes room. What has not keeps the other one until then.
function life.replace(there, m)
  if FINAL[there.s] then
    row.drop(there)
    return nil
  end
  call('HSET', row.key(m.id), 'nx', m.ce, 'nq', m.q)
  return 'later'
end

-- It was told of: what was put in its place goes back to its queue.
function life.replaced(id)
  local kept = call('HMGET', row.key(id), 'nx', 'nq', 's')
  if not kept[1] or not FINAL[kept[3]] then return end
  call('HDEL', row.key(id), 'nx', 'nq')
  call('RPUSH', K .. kept[2], kept[1])
  woken[kept[2]] = true
end

-- Stores messages that were taken off the lists: node, tag, token (or 'lost', or nothing), when it started, and the
-- message, each.
function ops.store_in()
  local now = taken()
  local stored = 0
  for _ = 1, taken() do
    local node, tag, token, started = take(), take(), given(), given()
    local entry = claim.messages()[1]
    local m = entry.m
    local value = call('HGET', P .. 'in:' .. node, tag)
    if value then
      local _, its = life.whose(value)
      if its ~= '' then call('SREM', P .. 'flying', its) end
      -- A copy of one that is on the express way is dropped as one of a row is.
      if call('SISMEMBER', P .. 'flying', m.id) == 0 then
        local there = row.read(m.id)
        if there and life.replaces(there, m) then there = life.replace(there, m) end
        if not there then
          claim.store(entry, now)
          -- Its revoke came before it did.
          if not token and call('HEXISTS', P .. 'memos', 'revoked:' .. m.id) == 1 then life.revoke(m.id, now) end
          if token then life.in_hand(m.id, node, token, started, now) end
        elseif there == 'later' then
          -- It comes again once the one that it replaces has ended.
        elseif there.nd == life.OUTSIDE then
          life.came_home(there, entry.fields)
        elseif FINAL[there.s] then
          -- It came again: its result is told again.
          life.out(there)
        end
      end
      acked(node, tag)
      stored = stored + 1
    end
  end
  return { 'stored_in', stored }
end

-- Takes over what a node that is gone had taken off the lists; Rust makes rows of it.
function life.take_over_in(node, left)
  local all = call('HGETALL', P .. 'in:' .. node)
  for i = 1, #all, 2 do
    if left > 0 then
      local queue, id, token, started = life.whose(all[i + 1])
      local value = queue
      if id ~= '' then value = queue .. '\0' .. id .. '\0' .. (started ~= '' and 'lost' or '') .. '\0' end
      if token == 'lost' then value = all[i + 1] end
      call('HSET', P .. 'in:' .. NODE, all[i], value)
      call('HDEL', P .. 'in:' .. node, all[i])
      left = left - 1
    end
  end
  return left
end

-- Celery's workers take back what nobody renewed for an hour.
function life.renew()
  local tags = call('HKEYS', P .. 'in:' .. NODE)
  if #tags == 0 then return end
  local time = call('TIME')
  local score = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
  for _, tag in ipairs(tags) do call('ZADD', K .. 'unacked_index', 'XX', score, tag) end
end

-- Whether nobody renewed this one for so many seconds, and no node of taskd has it.
function life.is_stale(tag, seconds)
  local score = call('ZSCORE', K .. 'unacked_index', tag)
  if not score or tonumber(score) > tonumber(call('TIME')[1]) - seconds then return false end
  for _, node in ipairs(call('ZRANGE', P .. 'alive', 0, -1)) do
    if call('HEXISTS', P .. 'in:' .. node, tag) == 1 then return false end
  end
  return true
end

-- What stands in kombu's unacked for too long, behind so many others: tag and entry each.
function ops.stale()
  local seconds, past, most = taken(), taken(), taken()
  local list = { 'stale' }
  local upto = tonumber(call('TIME')[1]) - seconds
  for _, tag in ipairs(call('ZRANGEBYSCORE', K .. 'unacked_index', '-inf', N(upto), 'LIMIT', past, most)) do
    list[#list + 1] = { tag, call('HGET', K .. 'unacked', tag) or '' }
  end
  return list
end

-- Gives one of them back, to the front of its list. Answers whether it is gone from here.
function ops.give_back()
  local tag, seconds, queue, step, raw = take(), taken(), take(), taken(), take()
  if not life.is_stale(tag, seconds) then return { 'given', 0 } end
  call('ZREM', K .. 'unacked_index', tag)
  if call('HDEL', K .. 'unacked', tag) == 1 then
    call('RPUSH', life.lists(queue)[step], raw)
    woken[queue] = true
  end
  return { 'given', 1 }
end

-- Stores the end of one that cannot be read: a record of a failure, its meta, and what is to be published with it.
function ops.refuse_in()
  local now, tag, state, outcome, keep = taken(), take(), take(), take(), taken()
  local entry = claim.messages()[1]
  local m = entry.m
  -- The one on its way under this id is this one, or it is another one's business.
  local _, its = life.whose(call('HGET', P .. 'in:' .. NODE, tag) or '')
  if its ~= '' then call('SREM', P .. 'flying', its) end
  if not row.exists(m.id) then
    row.begin(m, entry.fields, 'WAITING', nil, now, false)
    row.finish(m, state, outcome, now, state ~= 'DEAD' and keep or nil)
    row.save(m)
  end
  life.metas()
  acked(NODE, tag)
  return { 'done' }
end

-- Its end is to be told to Celery.
function life.out(r)
  if r.cf then call('RPUSH', P .. 'out:' .. NODE, r.id) end
end

-- The next ends to be told.
function ops.out()
  local list = { 'out' }
  for _, id in ipairs(call('LRANGE', P .. 'out:' .. NODE, 0, taken() - 1)) do
    list[#list + 1] = { id, row.record(id) }
  end
  return list
end

-- Metas: key, seconds to live (0: for good), text; SUCCESS is final.
function life.metas()
  for _ = 1, taken() do
    local id, ttl, text = take(), taken(), take()
    local key = METAS .. 'celery-task-meta-' .. id
    local there = call('GET', key)
    if not there or not string.find(there, '"status": ?"SUCCESS"') then
      if ttl > 0 then call('SETEX', key, ttl, text) else call('SET', key, text) end
      call('PUBLISH', key, text)
    end
  end
end

-- Tells the first end of the outbox: metas, sizes of chords, messages to send, and the mark that was asked for.
function ops.tell()
  local id = take()
  life.metas()
  for _ = 1, taken() do
    local group, size = take(), take()
    call('SET', METAS .. 'celery-taskset-meta-' .. group .. '.s', size, 'EX', 86400)
  end
  for _ = 1, taken() do
    local queue, step, raw = take(), taken(), take()
    call('LPUSH', life.lists(queue)[step], raw)
    woken[queue] = true
  end
  if id ~= '' then
    call('LREM', P .. 'out:' .. NODE, 1, id)
    life.replaced(id)
  end
  return { 'done' }
end

-- A member of a chord has ended (on_chord_part_return of Celery's Redis backend): counted once; the parts in their
-- order where all have, and this node is to call the body.
function ops.part()
  local group, id, score, part, size, ttl = take(), take(), take(), take(), given(), taken()
  local base = METAS .. 'celery-taskset-meta-' .. group
  if call('GET', base .. '.c') == 'done' then return { 'part' } end
  if call('SADD', base .. '.d', id .. ':' .. score) == 1 then call('ZADD', base .. '.j', score, part) end
  for _, suffix in ipairs({ '.j', '.d', '.t', '.s' }) do call('EXPIRE', base .. suffix, ttl) end
  if size then call('SET', base .. '.s', size, 'EX', ttl, 'NX') end
  local all = tonumber(call('GET', base .. '.s'))
  if not all then return { 'part' } end
  all = all + tonumber(call('GET', base .. '.t') or 0)
  if call('ZCARD', base .. '.j') < all then return { 'part' } end
  if not call('SET', base .. '.c', NODE, 'NX', 'EX', 30) and call('GET', base .. '.c') ~= NODE then return { 'part' } end
  local tree = call('GET', base) or ''
  return { 'part', call('ZRANGE', base .. '.j', 0, -1), tree }
end

-- The body of a chord is called, or never will be.
function ops.parted()
  local base = METAS .. 'celery-taskset-meta-' .. take()
  call('SET', base .. '.c', 'done', 'EX', 300)
  call('DEL', base .. '.j', base .. '.d', base .. '.t', base .. '.s')
  return { 'done' }
end

-- Metas that are stored, for ids.
function ops.metas()
  local list = { 'metas' }
  for i, id in ipairs(many()) do list[i + 1] = call('GET', METAS .. 'celery-task-meta-' .. id) or '' end
  return list
end

-- Old producers look for a queue's bindings before they send to it.
function ops.bind()
  for _, queue in ipairs(many()) do
    local member = queue .. '\6\22\6\22' .. queue
    call('SADD', K .. '_kombu.binding.' .. queue, member)
    call('SADD', K .. '_kombu.binding_permanent.' .. queue, member)
  end
  return { 'done' }
end
