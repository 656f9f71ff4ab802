-- Dead letters: what is meant is chosen by who asks; what is done to them is done here.

-- The next finished rows of a phase whose payload is kept, in order.
function ops.letters()
  local phase, finished, seq, upto, most = take(), take(), taken(), taken(), taken()
  local index = ({ ['0'] = 'dead', ['1'] = 'kept_default', ['2'] = 'own' })[phase]
  local list, from = { 'letters' }, 0
  while #list <= most do
    local part = call('ZRANGEBYSCORE', P .. index, finished, '+inf', 'WITHSCORES', 'LIMIT', from, most)
    for i = 1, #part, 2 do
      local member, at_ms = part[i], tonumber(part[i + 1])
      local no = tonumber(string.sub(member, 1, 16), 16)
      -- Those of the same millisecond that were seen before are passed over.
      local after = finished == '-inf' or at_ms > tonumber(finished) or no > seq
      if after and no <= upto and #list <= most then list[#list + 1] = row.record(row.id_of(member)) end
    end
    if #part < 2 * most then break end
    from = from + most
  end
  return list
end

-- The next rows whose payload is kept, newest first.
function ops.page()
  local before, most = given(), taken()
  local list = { 'page' }
  while #list <= most do
    -- Rows and packed records, merged: their numbers are of one sequence.
    local high = before and '(' .. before or '+inf'
    local all = call('ZREVRANGEBYSCORE', P .. 'all', high, '-inf', 'LIMIT', 0, most)
    local n = #all
    local recent = call('ZREVRANGEBYSCORE', P .. 'recent', high, '-inf', 'LIMIT', 0, most)
    for _, member in ipairs(recent) do all[#all + 1] = member end
    table.sort(all, function(a, b) return a > b end)
    local seen = 0
    for _, member in ipairs(all) do
      if #list <= most and seen < most then
        seen = seen + 1
        before = N(tonumber(string.sub(member, 1, 16), 16))
        local record = row.record(row.id_of(member))
        -- One that was forgotten by itself.
        if #record > 0 then list[#list + 1] = record else call('ZREM', P .. 'recent', member) end
      end
    end
    if n < most and #recent < most and seen == #all then break end
  end
  return list
end

function ops.last_seq() return { 'seq', call('HGET', P .. 'n', 'seq') or '0' } end

-- Forgets letters: id and number each.
function ops.letters_purge()
  local now, done = taken(), 0
  local list = many()
  for i = 1, #list, 2 do
    local r = row.read(list[i])
    if r and N(r.sq) == list[i + 1] and FINAL[r.s] and not r.sl then
      row.outlive(r, now)
      done = done + 1
    end
  end
  return { 'letters_done', done, {}, {} }
end

-- New lives for letters: id and number each.
function ops.letters_retry()
  local now, due, queue = taken(), given(), given()
  local list, done, held, queues = many(), 0, {}, {}
  for i = 1, #list, 2 do
    local r = row.read(list[i])
    if r and N(r.sq) == list[i + 1] and FINAL[r.s] and not r.sl then
      local holder = claim.in_the_way(r, now)
      if holder then
        held[#held + 1] = r.id
        held[#held + 1] = holder
      else
        -- A step that never ran has nothing to repeat: it is counted among the matched only.
        local into = life.revive(r, due and tonumber(due), queue, now)
        if into then
          queues[into] = true
          done = done + 1
        end
      end
    end
  end
  local names = {}
  for name, _ in pairs(queues) do names[#names + 1] = name end
  table.sort(names)
  return { 'letters_done', done, held, names }
end
