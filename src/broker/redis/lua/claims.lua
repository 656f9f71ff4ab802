-- Who holds which key, and which messages of a publish are stored: claims.rs and admission.rs of the other stores.
-- A message that claims has 'ua' while its claim stands; it stands in uq:KEY while it holds the key.

function claim.set(r, held)
  if held then call('ZADD', P .. 'uq:' .. r.uk, N(r.sq), row.member(r))
  else call('ZREM', P .. 'uq:' .. r.uk, row.member(r)) end
end

-- A new row claims the key of its message.
function claim.new(r, from, now)
  if not r.uk then return end
  claim.drop_late(r.uk, now)
  r.ua, r.uu = '1', nil
  -- What holds for a run ends with the run.
  if r.up and r.uh ~= 'running' then r.uu = from + r.up end
  if r.uh ~= 'running' then claim.set(r, true) end
end

function claim.drop(r)
  claim.set(r, false)
  r.ua, r.uu = nil, nil
end

-- The state of a row changed.
function claim.follow(r)
  if FINAL[r.s] or (r.uh == 'queued' and (r.s == 'RUNNING' or r.s == 'RETRY')) then
    claim.drop(r)
  elseif r.uh == 'running' then
    claim.set(r, r.s == 'RUNNING')
  end
end

-- Drops the claims on this key whose period is over.
function claim.drop_late(key, now)
  for _, member in ipairs(call('ZRANGE', P .. 'uq:' .. key, 0, -1)) do
    local id = row.id_of(member)
    local seen = call('HMGET', row.key(id), 'uu')
    if seen[1] and tonumber(seen[1]) <= now then
      call('ZREM', P .. 'uq:' .. key, member)
      call('HDEL', row.key(id), 'ua', 'uu')
    end
  end
end

-- The earliest row that holds this key: its id, queue and stage.
function claim.holder(key, now)
  for _, member in ipairs(call('ZRANGE', P .. 'uq:' .. key, 0, -1)) do
    local id = row.id_of(member)
    local v = call('HMGET', row.key(id), 'uu', 's', 'tk', 'q', 'un')
    if not v[1] or tonumber(v[1]) > now then
      local stage = 'open'
      if v[2] == 'RUNNING' then stage = 'running' elseif v[3] then stage = 'leased' end
      return { id = id, q = v[4], stage = stage, counts = not v[5] }
    end
  end
  return nil
end

-- What becomes of the claim of m against whoever holds its key: a word, and the holder's id.
function claim.judge(m, holder)
  if not holder then return 'free' end
  if m.uh == 'running' and holder.stage ~= 'running' then return 'free' end
  if m.uc == 'replace' and holder.stage == 'open' then return 'replaces', holder.id end
  if m.uc == 'replace' and holder.stage == 'leased' then return 'leased', holder.id end
  return 'held', holder.id
end

-- Who keeps a message from a new life.
function claim.in_the_way(m, now)
  if not m.uk then return nil end
  local what, id = claim.judge(m, claim.holder(m.uk, now))
  if what == 'free' then return nil end
  return id
end

-- Reads messages with their bounds: each its id, its bound and its fields.
function claim.messages()
  local list = {}
  for i = 1, taken() do
    local id, bound = take(), tonumber(take())
    local fields = many()
    local m = row.fields(fields)
    m.id = id
    list[i] = { m = m, fields = fields, bound = bound }
  end
  return list
end

-- What becomes of each message of a publish, or the answer where nothing is stored.
function claim.admit(list, now)
  local ids, keys, replaced, added, verdicts = {}, {}, {}, {}, {}
  for i, entry in ipairs(list) do
    local m = entry.m
    local verdict
    if ids[m.id] or row.exists(m.id) then
      -- Whoever asks makes it a row first.
      if call('SISMEMBER', P .. 'flying', m.id) == 1 then return nil, { 'flying', m.id } end
      verdict = { 'known' }
    elseif joins.by_id(m.id) then
      verdict = { 'workflow' }
    else
      local ends
      if m.uk then
        local holder = keys[m.uk]
        if not holder then
          holder = claim.holder(m.uk, now)
          if holder and replaced[holder.id] then holder = nil end
        end
        local what, id = claim.judge(m, holder)
        if what == 'held' and m.uc == 'error' then return nil, { 'taken', m.id, id, row.record(id) } end
        if what == 'held' then
          verdict = { 'held', id }
        elseif what == 'leased' then
          return nil, { 'in_hand', id, m.uk }
        else
          if what == 'replaces' then
            if holder.counts and holder.q == m.q then added[m.q] = (added[m.q] or 0) - 1 end
            replaced[id] = true
            ends = id
          end
          if m.uh ~= 'running' then keys[m.uk] = { id = m.id, q = m.q, stage = 'open', counts = true } end
        end
      end
      if not verdict then
        added[m.q] = (added[m.q] or 0) + 1
        if entry.bound and row.length(m.q) + added[m.q] > entry.bound then
          return nil, { 'full', m.q, N(entry.bound) }
        end
        ids[m.id] = true
        verdict = { 'stored', ends }
      end
    end
    verdicts[i] = verdict
  end
  return verdicts
end

-- The answer for a message that is not stored.
function claim.not_stored(id, verdict)
  if verdict[1] == 'known' then return { 'known', row.record(id) } end
  if verdict[1] == 'workflow' then return { 'workflow', joins.head(id) } end
  if verdict[1] == 'held' then return { 'held', row.record(verdict[2]) } end
  return nil
end

function claim.stored(ends)
  if ends then return { 'replaced', ends } end
  return { 'new' }
end

-- Stores a message that is admitted; ends: the one that it replaces.
function claim.store_replacing(entry, ends, now)
  local m = entry.m
  local other = ends and row.read(ends)
  if other then
    row.finish(other, 'REVOKED', OUTCOME.replaced(m.id), now)
    life.finished(other, nil, now)
  end
  local state, due = life.first_state(m, now)
  row.begin(m, entry.fields, state, due, now, true)
end

-- Who keeps a message from being stored.
function claim.held_by(m, now)
  if not m.uk then return nil end
  local what, id = claim.judge(m, claim.holder(m.uk, now))
  if what == 'held' or what == 'leased' then return id end
  return nil
end

-- Stores a message that nobody waits for an answer about; a known id changes nothing. Where another message holds its
-- key it is stored as ended, so that its id tells what became of it.
function claim.store(entry, now)
  local m = entry.m
  if row.exists(m.id) then return end
  local what, id = 'free', nil
  if m.uk then what, id = claim.judge(m, claim.holder(m.uk, now)) end
  if what == 'free' or what == 'replaces' then
    claim.store_replacing(entry, id, now)
  else
    row.begin(m, entry.fields, 'WAITING', nil, now, false)
    row.finish(m, 'REVOKED', OUTCOME.key_held(id), now)
    schedule.put_finished(m, now)
  end
end

function ops.publish()
  local now = taken()
  local list = claim.messages()
  local verdicts, nothing = claim.admit(list, now)
  if not verdicts then return nothing end
  local replies = { 'published' }
  for i, entry in ipairs(list) do
    local verdict = verdicts[i]
    local known = claim.not_stored(entry.m.id, verdict)
    if not known then
      claim.store_replacing(entry, verdict[2], now)
      known = claim.stored(verdict[2])
    end
    replies[i + 1] = known
  end
  return replies
end
