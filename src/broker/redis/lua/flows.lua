-- The rows of workflows: what the trait Joins of joins.rs asks of a store. A workflow has a number, its key:
--   flow:KEY   hash    its head, and what is kept beside it
--   step:KEY   hash    number -> 'STAGE PENDING OPENED FLAGS'
--   of:KEY     hash    number -> id, name and task, packed
--   plan:KEY   hash    number -> what is published when its time comes, packed; absent where that was at once
--   after:KEY  hash    number -> the steps before it; next:KEY: those after it. Four bytes each, in order
--   sinks:KEY  string  the steps whose results are the workflow's, alike
--   result:KEY hash    number -> the JSON of a result that a later step is given
--   work:KEY   hash    place -> what is still to be told; works:KEY: the places; ends:KEY: those of ends, by source
-- flow_ids: id -> KEY; flows_busy: those with work; flows_over: those that are over, by when they are forgotten.
-- Flags of a step: b born, p passes, s sink, f runs on failure, g goes on. Packed: a list of texts in MessagePack.
-- Numbers that Rust names too are compared with it by a test in flows.rs.

joins.PART, joins.LOOK, joins.RESULTS, joins.BYTES, joins.AT_ONCE = 500, 1000, 100, 1048576, 2000
joins.FAILED = { FAILURE = true, REVOKED = true, EXPIRED = true, DEAD = true }
joins.END = 4294967295

-- Every key of a workflow beside its head.
joins.PARTS = { 'step:', 'of:', 'plan:', 'after:', 'next:', 'sinks:', 'result:', 'work:', 'works:', 'ends:' }

-- The number at a place (from 0) of a list of four bytes each.
function joins.four(list, place) return (struct.unpack('>I4', list, 4 * place + 1)) end

function joins.fours(list)
  local numbers = {}
  for place = 0, #list / 4 - 1 do numbers[place + 1] = joins.four(list, place) end
  return numbers
end

-- The first place whose number is not below 'least'; at: what is at a place.
function joins.place(count, least, at)
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if at(middle) < least then low = middle + 1 else high = middle end
  end
  return low
end

-- Writes name, value, name, value ... of any length into a hash.
function joins.fill(key, pairs_of)
  for from = 1, #pairs_of, 2000 do
    call('HSET', key, unpack(pairs_of, from, math.min(from + 1999, #pairs_of)))
  end
end

function joins.by_id(id) return call('HGET', P .. 'flow_ids', id) or nil end

joins.FIELDS = {
  'id', 'name', 'uid', 'launched', 'steps', 'open', 'failed', 'lost', 'canceled', 'finished', 'fs', 'fp', 'held',
  'keep', 'busy', 'tick', 'expires',
}
joins.COUNTS = { launched = true, steps = true, open = true, failed = true, lost = true, keep = true, tick = true }

function joins.flow_at(key)
  local values = call('HMGET', P .. 'flow:' .. key, unpack(joins.FIELDS))
  if not values[1] then return nil end
  local f = { key = key }
  for i, name in ipairs(joins.FIELDS) do
    local value = values[i]
    if joins.COUNTS[name] then
      f[name] = tonumber(value)
    elseif value and value ~= '' then
      f[name] = value
    end
  end
  f.finished, f.expires = tonumber(f.finished), tonumber(f.expires)
  f.fs = f.fs and string.sub(f.fs, 2)
  return f
end

function joins.flow_of(id)
  local key = joins.by_id(id)
  return key and joins.flow_at(key)
end

-- Writes what changes of a workflow, whatever was read.
function joins.put_flow(f)
  call(
    'HSET', P .. 'flow:' .. f.key, 'open', f.open, 'failed', f.failed, 'lost', f.lost, 'canceled', f.canceled or '',
    'finished', f.finished and N(f.finished) or '', 'held', f.held or '', 'busy', f.busy or '', 'tick', f.tick,
    'expires', f.expires and N(f.expires) or ''
  )
  if f.busy then
    call('ZADD', P .. 'flows_busy', f.key, f.key)
  else
    call('ZREM', P .. 'flows_busy', f.key)
  end
  local member = string.format('%016x', tonumber(f.key))
  if f.expires then
    call('ZADD', P .. 'flows_over', N(f.expires), member)
  else
    call('ZREM', P .. 'flows_over', member)
  end
end

-- The state of the whole.
function joins.state(f)
  if not f.finished then return f.held and 'SCHEDULED' or 'RUNNING' end
  if f.lost == 0 then return 'SUCCESS' end
  return f.canceled and 'REVOKED' or 'FAILURE'
end

-- A head as Rust reads it.
function joins.told_head(f)
  return {
    f.id, f.name or '', f.uid or '', N(f.launched), f.steps, f.open, f.failed, f.lost, f.canceled and 1 or 0,
    f.finished and N(f.finished) or '', f.held and 1 or 0, f.fs and '=' .. f.fs or '', f.fp or '',
  }
end

function joins.head(id)
  local f = joins.flow_of(id)
  return f and joins.told_head(f)
end

-- A workflow of so many steps is over (1), or is not any more (-1).
function joins.count_over(steps, sign) call('HINCRBY', P .. 'n', 'spent', sign * steps) end

-- What a schedule looks at of a workflow that it launched.
function joins.fire(key)
  local v = call('HMGET', P .. 'flow:' .. key, 'id', 'canceled', 'held')
  return { id = v[1], canceled = v[2] == '1' or nil, held = v[3] == '1' or nil }
end

-- A workflow that a schedule launched has an open step, for the first time or again. Its place among what that fired
-- is kept with it.
function joins.fire_begins(f)
  if not f.fs then return end
  local seq = row.next('seq')
  local member = string.format('%016x', seq) .. '/' .. f.key
  call('ZADD', P .. 'fires:' .. f.fs, seq, member)
  local places = call('HGET', P .. 'flow:' .. f.key, 'fq')
  call('HSET', P .. 'flow:' .. f.key, 'fq', (places and places .. ' ' or '') .. member)
end

function joins.fire_ends(f, now)
  if not f.fs then return end
  local places = call('HGET', P .. 'flow:' .. f.key, 'fq')
  for member in string.gmatch(places or '', '%S+') do call('ZREM', P .. 'fires:' .. f.fs, member) end
  call('HDEL', P .. 'flow:' .. f.key, 'fq')
  schedule.fire_over(f.fs, f.id, joins.state(f), now)
end

function joins.parsed(no, text)
  local stage, pending, opened, born, flags = string.match(text, '^(%u+) (%d+) (%d+) (b?)(%l*)$')
  return {
    no = no, stage = stage, pending = tonumber(pending), opened = tonumber(opened), born = born == 'b', flags = flags,
    passes = string.find(flags, 'p', 1, true), failure = string.find(flags, 'f', 1, true),
    goes_on = string.find(flags, 'g', 1, true), sink = string.find(flags, 's', 1, true),
  }
end

function joins.is_over(stage) return stage ~= 'PENDING' and stage ~= 'PUBLISHED' end

function joins.row(key, no)
  local text = call('HGET', P .. 'step:' .. key, no)
  return text and joins.parsed(no, text) or nil
end

function joins.stage(key, no)
  local r = joins.row(key, no)
  return r and r.stage or 'PENDING'
end

-- Writes a step; its result too, where one is given.
function joins.put_row(key, r, result)
  local text = r.stage .. ' ' .. r.pending .. ' ' .. r.opened .. ' ' .. (r.born and 'b' or '') .. r.flags
  call('HSET', P .. 'step:' .. key, r.no, text)
  if result then call('HSET', P .. 'result:' .. key, r.no, result) end
end

-- Steps from a number on, at most 'limit', which is at most LOOK.
function joins.page(f, from, limit, sinks)
  local numbers = {}
  if sinks then
    local key = P .. 'sinks:' .. f.key
    local count = call('STRLEN', key) / 4
    local first = joins.place(count, from, function(place)
      return joins.four(call('GETRANGE', key, 4 * place, 4 * place + 3), 0)
    end)
    numbers = joins.fours(call('GETRANGE', key, 4 * first, 4 * (first + limit) - 1))
  else
    for no = from, math.min(from + limit, f.steps) - 1 do numbers[#numbers + 1] = no end
  end
  local rows = {}
  if #numbers == 0 then return rows end
  for i, text in ipairs(call('HMGET', P .. 'step:' .. f.key, unpack(numbers))) do
    rows[i] = joins.parsed(numbers[i], text)
  end
  return rows
end

-- Where the page behind this one begins; nil where this one was the last.
function joins.behind(rows, limit)
  if #rows < limit then return nil end
  return rows[#rows].no + 1
end

-- Id, name and task of a step.
function joins.of(key, no)
  local text = call('HGET', P .. 'of:' .. key, no)
  return text and cmsgpack.unpack(text) or { '', '', '' }
end

function joins.step_id(key, no) return joins.of(key, no)[1] end

-- Steps after this one, in order, within the bounds of a work.
function joins.targets(key, work, limit)
  local list, numbers = call('HGET', P .. 'next:' .. key, work.source), {}
  if not list then return numbers end
  local count = #list / 4
  local place = joins.place(count, work.from, function(at_place) return joins.four(list, at_place) end)
  while place < count and #numbers < limit do
    local no = joins.four(list, place)
    if no >= work.till then break end
    numbers[#numbers + 1] = no
    place = place + 1
  end
  return numbers
end

-- What is published of a step: its flags i (immutable) and g (gather), delay, lifetime, id, then its fields.
function joins.planned(text)
  local list = cmsgpack.unpack(text)
  return {
    immutable = string.find(list[1], 'i', 1, true), gather = string.find(list[1], 'g', 1, true),
    delay = tonumber(list[2]), lifetime = tonumber(list[3]), id = list[4], list = list,
  }
end

function joins.plan(key, no)
  local text = call('HGET', P .. 'plan:' .. key, no)
  return text and joins.planned(text) or nil
end

function joins.after(key, no)
  local list = call('HGET', P .. 'after:' .. key, no)
  return list and joins.fours(list) or {}
end

-- Forgets the results of these steps where no other step will be given them.
function joins.spend(key, sources)
  for _, no in ipairs(sources) do
    if call('HSTRLEN', P .. 'next:' .. key, no) == 4 then call('HDEL', P .. 'result:' .. key, no) end
  end
end

function joins.is_end(work) return not work.revive and not work.begins end

function joins.end_place(source, place) return string.format('%08x:%016x', source, place) end

-- Writes work at a place.
function joins.set_work(key, place, work)
  call('HSET', P .. 'work:' .. key, place, table.concat({
    N(work.source), work.begins and 'b' or work.revive and 'r' or 'e', N(work.from), N(work.till), N(work.tick),
  }, ' '))
  call('ZADD', P .. 'works:' .. key, place, place)
  if joins.is_end(work) then call('ZADD', P .. 'ends:' .. key, 0, joins.end_place(work.source, place)) end
end

function joins.drop_work(key, place, work)
  call('HDEL', P .. 'work:' .. key, place)
  call('ZREM', P .. 'works:' .. key, place)
  if joins.is_end(work) then call('ZREM', P .. 'ends:' .. key, joins.end_place(work.source, place)) end
end

function joins.push_work(key, work) joins.set_work(key, row.next('work'), work) end

function joins.work_at(key, place)
  local text = call('HGET', P .. 'work:' .. key, place)
  local source, kind, from, till, tick = string.match(text, '^(%d+) (%l) (%d+) (%d+) (%d+)$')
  return {
    source = tonumber(source), revive = kind == 'r', begins = kind == 'b', from = tonumber(from),
    till = tonumber(till), tick = tonumber(tick),
  }
end

-- The place of the first work, and the work.
function joins.first_work(key)
  local place = tonumber(call('ZRANGE', P .. 'works:' .. key, 0, 0)[1])
  if not place then return nil end
  return place, joins.work_at(key, place)
end

-- The place of the work that tells the end of this step, and the work.
function joins.end_work(key, source)
  local prefix = string.format('%08x:', source)
  local found = call('ZRANGEBYLEX', P .. 'ends:' .. key, '[' .. prefix, '(' .. prefix .. 'g', 'LIMIT', 0, 1)[1]
  if not found then return nil end
  local place = tonumber(string.sub(found, 10), 16)
  return place, joins.work_at(key, place)
end

-- The message of a plan, with this as the time of its acceptance: its row and its fields.
function joins.message(plan, enqueued)
  local fields = { 'enq', N(enqueued), unpack(plan.list, 5) }
  for i = 3, #fields, 2 do
    if fields[i] == 'enq' then fields[i + 1] = fields[2] end
  end
  local m = row.fields(fields)
  m.id = plan.id
  return { m = m, fields = fields }
end

joins.GIVEN = { enq = true, eta = true, ex = true, a = true }

-- The message of a step as it is published now, with the JSON that it is given before its own arguments; nil where
-- that is larger than a message may be. Arguments are joined as texts: numbers in them are not ours to read.
function joins.call(plan, now, value)
  local list, fields, m = plan.list, {}, { id = plan.id }
  local args, kwargs, headers, n = '[]', 2, 2, 0
  for i = 5, #list, 2 do
    local name, text = list[i], list[i + 1]
    if name == 'a' then
      args = text
    elseif not joins.GIVEN[name] then
      if name == 'k' then kwargs = #text elseif name == 'h' then headers = #text end
      fields[n + 1], fields[n + 2] = name, text
      n = n + 2
      m[name] = NUMBERS[name] and tonumber(text) or text
    end
  end
  if value then args = args == '[]' and '[' .. value .. ']' or '[' .. value .. ',' .. string.sub(args, 2) end
  if #args + kwargs + headers + 4 > joins.BYTES then return nil end
  fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'a', args, 'enq', N(now)
  n = n + 4
  if plan.delay and plan.delay > 0 then
    m.eta = now + plan.delay
    fields[n + 1], fields[n + 2] = 'eta', N(m.eta)
    n = n + 2
  end
  if plan.lifetime then
    m.ex = (m.eta or now) + plan.lifetime
    fields[n + 1], fields[n + 2] = 'ex', N(m.ex)
  end
  return { m = m, fields = fields }
end

-- Stores a message; false: its id is known, or its key is held, of which it is stored as ended.
function joins.store(entry, now)
  local holder = claim.held_by(entry.m, now)
  if holder then
    joins.put_ended(entry, 'REVOKED', OUTCOME.key_held(holder), now, RULES.ID_KEPT)
    return false
  end
  if row.exists(entry.m.id) then return false end
  claim.store(entry, now)
  return true
end

-- Records the end of a message that never was published, unless its id is known.
function joins.put_ended(entry, state, outcome, now, keep)
  local m = entry.m
  if row.exists(m.id) then return end
  call('HSET', row.key(m.id), unpack(entry.fields))
  m.old = nil
  m.sq, m.rk, m.n, m.lo, m.c = row.next('seq'), 0, 0, 0, '1'
  row.finish(m, state, outcome, now, keep)
  row.save(m)
end

-- Forgets such a record.
function joins.drop_ended(id)
  local r = row.read(id)
  if r and FINAL[r.s] then row.drop(r) end
end

-- A text as JSON, as short as Rust writes it.
function joins.json(text) return (string.gsub(cjson.encode(text), '\\/', '/')) end

-- The text of the result in the JSON of an outcome; nil: it has none.
function joins.result_in(json)
  local depth, at_byte, from = 0, 1, nil
  while true do
    local found, _, mark = string.find(json, '([%[%]{}",])', at_byte)
    if not found then return nil end
    at_byte = found + 1
    if mark == '"' then
      local close = found
      repeat
        close = string.find(json, '["\\]', close + 1)
        if not close then return nil end
        local escapes = string.sub(json, close, close) == '\\'
        if escapes then close = close + 1 end
      until not escapes
      at_byte = close + 1
      if depth == 1 and not from and string.sub(json, found, at_byte) == '"result":' then from = at_byte + 1 end
    elseif mark == ',' then
      if depth == 1 and from then return string.sub(json, from, found - 1) end
    elseif mark == '{' or mark == '[' then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return from and string.sub(json, from, found - 1) end
    end
  end
end
