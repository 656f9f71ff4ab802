-- Messages that Celery workers run: of external tasks, and what taskd itself puts into queues that both drain.
--
-- Until it is ready such a message is a row as any other. Then it is put into kombu's list in the step that marks its
-- row as held by OUTSIDE, a node that is never alive and never gone, so nobody takes it over. It ends here in the step
-- that reads the result which its worker wrote; or comes home, where this node takes it off the list itself.

-- No node can have this name.
life.OUTSIDE = '\0celery'

-- Rows of these queues that are ready and came from here: at most so many. And ids whose revoke is to be sent.
function ops.outside_ready()
  local most, list = taken(), { 'outside', call('LRANGE', P .. 'outside_revoke', 0, 99) }
  for _, queue in ipairs(many()) do
    local from = 0
    while #list - 2 < most and from < 1024 do
      if call('SISMEMBER', P .. 'paused', queue) == 1 then break end
      local members = call('ZRANGE', P .. 'ready:' .. queue, from, from + 63)
      if #members == 0 then break end
      for _, member in ipairs(members) do
        local id = row.id_of(member)
        if #list - 2 < most and call('HEXISTS', row.key(id), 'cf') == 0 then list[#list + 1] = row.record(id) end
      end
      from = from + #members
    end
  end
  return list
end

-- Puts messages into kombu's lists: id, step of its priority, the message, and an outcome where nobody will tell of its
-- end, with how long that is kept. Then revokes that are published, each with its channel.
function ops.outside_send()
  local now = taken()
  for _ = 1, taken() do
    local id, step, raw, outcome, expires_ms = take(), taken(), take(), given(), given()
    local r = row.read(id)
    if r and r.s == 'WAITING' and not r.tk and not r.un and not r.cf then
      call('LPUSH', life.lists(r.q)[step], raw)
      if outcome then
        r.n = (r.n or 0) + 1
        row.finish(r, 'SUCCESS', outcome, now, expires_ms and tonumber(expires_ms))
        life.finished(r, 'null', now)
        life.over(id, 'SUCCESS')
      else
        r.tk, r.nd = row.next('token'), life.OUTSIDE
        call('HSET', row.key(id), 'xr', raw, 'xs', N(now))
        row.save(r)
      end
    end
  end
  for _ = 1, taken() do
    local id, channel, raw = take(), take(), take()
    call('LREM', P .. 'outside_revoke', 1, id)
    call('PUBLISH', channel, raw)
  end
  life.over()
  return { 'done' }
end

-- Ends are told to all nodes, in one message for the whole operation.
local over = {}
function life.over(id, state)
  if id then
    over[#over + 1] = id .. ' ' .. state
  elseif #over > 0 then
    call('PUBLISH', P .. 'over', NODE .. '\n' .. table.concat(over, '\n'))
    over = {}
  end
end

-- Results of those of these ids that Celery workers have: id, token, task and the result.
function ops.outside_results()
  local list = { 'outside' }
  for _, id in ipairs(many()) do
    local v = call('HMGET', row.key(id), 'nd', 'tk', 't')
    if v[1] == life.OUTSIDE then
      local meta = call('GET', METAS .. 'celery-task-meta-' .. id)
      if meta then list[#list + 1] = { id, v[2], v[3], meta } end
    end
  end
  return list
end

-- A part of all that Celery workers have, behind a token: where the next part begins (empty: there is none), and id,
-- token, task and result of those that have one; the result is empty where none came since 'long_ago' and the message
-- is nowhere any more. Finding that out walks over a list, so it is done for few.
function ops.outside_look()
  local from, most, long_ago, few = take(), taken(), taken(), 4
  local members = call('ZRANGEBYSCORE', P .. 'nl:' .. life.OUTSIDE, '(' .. from, '+inf', 'LIMIT', 0, most)
  local list = { 'outside', '' }
  for _, member in ipairs(members) do
    local id = row.id_of(member)
    local v = call('HMGET', row.key(id), 'tk', 't', 'xs', 'q', 'xr')
    if #members == most then list[2] = v[1] end
    local meta = call('GET', METAS .. 'celery-task-meta-' .. id)
    if meta then
      list[#list + 1] = { id, v[1], v[2], meta }
    elseif few > 0 and v[3] and tonumber(v[3]) < long_ago then
      few = few - 1
      local there = call('HEXISTS', K .. 'unacked', string.match(v[5] or '', '"delivery_tag": ?"([^"\\]+)"') or '') == 1
      for _, key in ipairs(life.lists(v[4])) do there = there or call('LPOS', key, v[5] or '') end
      if not there then list[#list + 1] = { id, v[1], v[2], '' } end
    end
  end
  return list
end

-- What they came to: id, token, state, outcome, how long that is kept, and the JSON that later steps are given.
function ops.outside_over()
  local now, ended = taken(), { 'outside' }
  for _ = 1, taken() do
    local id, token, state, outcome, expires_ms, result = take(), take(), take(), take(), taken(), given()
    local r = life.held(id, token)
    if r and r.nd == life.OUTSIDE then
      if r.c == '1' then r.n = (r.n or 0) + 1 end
      call('HDEL', row.key(id), 'xr', 'xs')
      row.finish(r, state, outcome, now, expires_ms)
      life.finished(r, result, now)
      life.over(id, state)
      ended[#ended + 1] = id
      ended[#ended + 1] = state
    end
  end
  life.over()
  return ended
end

-- A message that went out was taken off its list by this node: it is run here, and its end is told to Celery's clients.
function life.came_home(r, fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'ce' then call('HSET', row.key(r.id), 'ce', fields[i + 1]) end
  end
  call('HDEL', row.key(r.id), 'xr', 'xs')
  r.cf = '1'
  r.tk, r.nd = nil, nil
  row.save(r)
end

-- Whether one that Celery workers have was taken back; else the word to end it is to be sent.
function life.fetched(r)
  local raw = call('HGET', row.key(r.id), 'xr') or ''
  for _, key in ipairs(life.lists(r.q)) do
    if call('LREM', key, -1, raw) > 0 then
      call('HDEL', row.key(r.id), 'xr', 'xs')
      return true
    end
  end
  call('RPUSH', P .. 'outside_revoke', r.id)
  return false
end

-- Messages that are not for this node go back to the end of a list: tag, queue, step, message.
function ops.put_back()
  for _ = 1, taken() do
    local tag, queue, step, raw = take(), take(), taken(), take()
    call('LPUSH', life.lists(queue)[step], raw)
    call('ZREM', K .. 'unacked_index', tag)
    call('HDEL', K .. 'unacked', tag)
    local value = call('HGET', P .. 'in:' .. NODE, tag)
    local _, id = life.whose(value or '')
    if id ~= '' then call('SREM', P .. 'flying', id) end
    call('HDEL', P .. 'in:' .. NODE, tag)
  end
  return { 'done' }
end
