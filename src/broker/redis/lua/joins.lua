-- How the steps of workflows follow one another: joins.rs and joins/run.rs, line by line. A run is one workflow under
-- change: f, what is still to be told (queue, between first and last), what is being told (current), the step that
-- ended, and now. A work: the end of 'source', or its new life where it revives, is told to the steps after it whose
-- numbers are not below 'from' and below 'till'. One thing is this store's own, because no script may take long: of
-- a workflow with more than AT_ONCE first steps the others are begun by a work that 'begins', too.

-- What the operation did beside its answer.
function joins.beside()
  if not fallout then
    fallout = {
      queues = {}, order = {}, ended = {}, over = {}, fires = {}, reopened = {}, released = {}, decided = {}, looked = 0,
    }
  end
  return fallout
end

local function note(list, entry) list[#list + 1] = entry end

function joins.run(f, now) return { f = f, queue = {}, first = 1, last = 0, now = now } end

function joins.effect(r, stage)
  if r.failure then return joins.FAILED[stage] and 'fire' or 'count' end
  if r.goes_on then return 'count' end
  if joins.FAILED[stage] then return 'fail' end
  return stage == 'SKIPPED' and 'skip' or 'count'
end

function joins.add(run, work)
  if run.f.busy then return joins.push_work(run.f.key, work) end
  run.last = run.last + 1
  run.queue[run.last] = work
end

function joins.end_of(no) return { source = no, from = 0, till = joins.END, tick = 0 } end

function joins.pop(run)
  local work = run.queue[run.first]
  run.queue[run.first] = nil
  run.first = run.first + 1
  return work
end

-- Tells what is to be told, within the budget, and writes the workflow.
function joins.go(run, budget)
  local f = run.f
  while true do
    local place, work
    if run.first <= run.last then
      work = joins.pop(run)
    elseif f.busy then
      place, work = joins.first_work(f.key)
      if not place then
        f.busy = nil
        break
      end
    else
      break
    end
    if budget.left == 0 then
      if not place then
        joins.push_work(f.key, work)
        while run.first <= run.last do joins.push_work(f.key, joins.pop(run)) end
        f.busy = '1'
      end
      joins.beside().more = true
      break
    end
    joins.tell(run, place, work, budget)
  end
  joins.write(run)
  return f
end

-- Tells one piece of work, or a part of it.
function joins.tell(run, place, work, budget)
  if work.begins then return joins.begin(run, place, work, budget) end
  local key, limit = run.f.key, budget.left
  local targets = joins.targets(key, work, limit)
  budget.left = limit - math.min(math.max(#targets, 1), limit)
  local ended = run.ended
  run.ended = nil
  local stage = ended and ended.no == work.source and ended.stage or joins.stage(key, work.source)
  -- Looked up below by what is left of it, so it is taken out of the store while it is told.
  if place then joins.drop_work(key, place, work) end
  for _, target in ipairs(targets) do
    work.from = target + 1
    run.current = work
    if work.revive then
      joins.revive(run, work, target)
    else
      joins.arrive(run, work.source, stage, target)
    end
    -- Its step may have been opened again meanwhile: then there is no end to tell any more.
    if not run.current then return end
    run.current = nil
  end
  if #targets == limit then joins.put_back(run, place, work) end
end

-- What is left of a work stands before all that was added meanwhile.
function joins.put_back(run, place, work)
  if place then return joins.set_work(run.f.key, place, work) end
  run.first = run.first - 1
  run.queue[run.first] = work
end

function joins.beginning(from) return { begins = true, source = joins.END, from = from, till = joins.END, tick = 0 } end

-- Publishes what waits for nothing, or a part of it.
function joins.begin(run, place, work, budget)
  local limit = math.min(budget.left, joins.PART)
  budget.left = budget.left - limit
  if place then joins.drop_work(run.f.key, place, work) end
  local rows = joins.page(run.f, work.from, limit)
  for _, r in ipairs(rows) do
    if r.stage == 'PENDING' and r.pending == 0 then
      -- Whoever cancels it ends them, too; but nothing else would if that stops half-way.
      if run.f.canceled then joins.conclude(run, r, 'REVOKED', OUTCOME.revoked) else joins.due(run, r) end
    end
  end
  work.from = joins.behind(rows, limit)
  if work.from then joins.put_back(run, place, work) end
end

-- Writes the workflow; it may be over now.
function joins.write(run)
  local f = run.f
  if f.open == 0 and not f.finished then
    f.finished = run.now
    f.expires = run.now + math.max(f.keep, RULES.ID_KEPT)
    f.held = nil
    local state = joins.state(f)
    if f.fs then note(joins.beside().fires, { f.fs, f.id, state }) end
    note(joins.beside().over, { f.id, state })
    joins.count_over(f.steps, 1)
    joins.fire_ends(f, run.now)
  end
  joins.put_flow(f)
end

-- The end of 'source' is told to 'target'.
function joins.arrive(run, source, stage, target)
  local r = joins.row(run.f.key, target)
  if not r or r.stage ~= 'PENDING' then return end
  if run.f.canceled then return joins.conclude(run, r, 'REVOKED', OUTCOME.revoked) end
  local effect = joins.effect(r, stage)
  if effect == 'count' then
    r.pending = math.max(r.pending - 1, 0)
    if r.pending == 0 then joins.due(run, r) else joins.put_row(run.f.key, r) end
  else
    joins.take_effect(run, r, effect, source, stage)
  end
end

-- A step fails because 'source' did, is skipped, or runs because of it.
function joins.take_effect(run, r, effect, source, stage)
  if effect == 'fail' then
    joins.conclude(run, r, 'FAILURE', joins.upstream(run, source, stage))
  elseif effect == 'skip' then
    joins.skip(run, r)
  else
    local plan = joins.plan(run.f.key, r.no)
    if not plan then return joins.lost(run, r) end
    local id = joins.step_id(run.f.key, source)
    joins.publish(run, r, plan, not plan.immutable and joins.json(id) or nil)
  end
end

function joins.upstream(run, source, stage)
  return OUTCOME.upstream(joins.step_id(run.f.key, source), N(source), FINAL[stage] and stage or 'FAILURE')
end

-- All steps before it were told.
function joins.due(run, r)
  local key = run.f.key
  if r.failure then return joins.skip(run, r) end
  -- It is published when all of it is released.
  if run.f.held then return joins.put_row(key, r) end
  local plan = joins.plan(key, r.no)
  if not plan then return joins.lost(run, r) end
  local value
  local after = plan.immutable and {} or joins.after(key, r.no)
  if #after > 0 then
    local list, size, spent = {}, 0, {}
    for i, source in ipairs(after) do
      local result = call('HGET', P .. 'result:' .. key, source)
      if result then spent[#spent + 1] = source end
      list[i] = result or 'null'
      size = size + #list[i]
      if size > joins.BYTES then return joins.conclude(run, r, 'FAILURE', OUTCOME.too_large) end
    end
    value = (plan.gather or #after > 1) and '[' .. table.concat(list, ',') .. ']' or list[1]
    joins.spend(key, spent)
  end
  joins.publish(run, r, plan, value)
end

-- What was launched cannot be read any more.
function joins.lost(run, r) joins.conclude(run, r, 'FAILURE', OUTCOME.no_definition) end

function joins.publish(run, r, plan, value)
  local key = run.f.key
  local entry = joins.call(plan, run.now, value)
  if not entry then return joins.conclude(run, r, 'FAILURE', OUTCOME.too_large) end
  local m = entry.m
  r.pending = 0
  if joins.store(entry, run.now) then
    r.stage, r.born = 'PUBLISHED', true
    joins.fallout_published(m)
    return joins.put_row(key, r)
  end
  local known = row.read(m.id)
  if not known or known.w ~= m.w or known.wn ~= m.wn or known.wp ~= m.wp then
    return joins.conclude(run, r, 'FAILURE', OUTCOME.id_taken(m.id))
  end
  r.born = true
  if FINAL[known.s] then
    -- It ran in an earlier life of this workflow, which was forgotten before its ids.
    joins.end_row(run, r, known.s)
    local outcome = call('HGET', row.key(m.id), 'o')
    joins.put_row(key, r, outcome and joins.result_in(outcome))
    return joins.add(run, joins.end_of(r.no))
  end
  r.stage = 'PUBLISHED'
  joins.put_row(key, r)
end

-- A step is over.
function joins.end_row(run, r, stage)
  local f = run.f
  r.stage = stage
  f.open = math.max(f.open - 1, 0)
  if joins.FAILED[stage] then
    f.failed = f.failed + 1
    if r.sink then f.lost = f.lost + 1 end
  end
end

-- A step that is over is not any more.
function joins.open_row(run, r, stage)
  local f = run.f
  if f.finished then
    joins.count_over(f.steps, -1)
    joins.fire_begins(f)
    if f.fs then note(joins.beside().reopened, f.fs) end
  end
  f.open = f.open + 1
  if joins.FAILED[r.stage] then
    f.failed = math.max(f.failed - 1, 0)
    if r.sink then f.lost = math.max(f.lost - 1, 0) end
  end
  f.finished, f.expires = nil, nil
  f.tick = f.tick + 1
  r.stage, r.opened = stage, f.tick
end

-- Ends a step that did not run.
function joins.conclude(run, r, state, outcome)
  local key = run.f.key
  r.born, r.pending = false, 0
  joins.end_row(run, r, state)
  joins.put_row(key, r)
  joins.record(run, r.no, state, outcome)
  note(joins.beside().ended, { joins.step_id(key, r.no), state })
  -- Of a canceled workflow every step is ended, whatever its place.
  if not run.f.canceled then joins.add(run, joins.end_of(r.no)) end
end

-- Keeps how a step ended that did not run, for whoever asks for it by its id.
function joins.record(run, no, state, outcome)
  local plan = joins.plan(run.f.key, no)
  if not plan then return end
  local entry = joins.message(plan, run.f.launched)
  joins.put_ended(entry, state, outcome, run.now, run.f.keep)
end

function joins.skip(run, r)
  r.pending = 0
  joins.end_row(run, r, 'SKIPPED')
  joins.put_row(run.f.key, r)
  joins.add(run, joins.end_of(r.no))
end

-- 'target' comes after a step that begins anew.
function joins.revive(run, work, target)
  local r = joins.row(run.f.key, target)
  if not r then return end
  if r.stage ~= 'PENDING' then
    if not run.f.canceled then joins.reopen(run, r) end
  elseif work.tick > r.opened then
    -- What was opened later was counted when it was: it saw the other one open.
    r.pending = r.pending + 1
    joins.put_row(run.f.key, r)
  end
end

-- What the steps before one that is over decide about it: how many are to be waited for, the effect, the step that has
-- it, and the stage of that. Where it stays as it is because of that one nobody asks for the number, and in the same
-- script the next search begins there: a step after many is looked at for each of them.
function joins.decision(run, r)
  local key, pending = run.f.key, 0
  local list = call('HGET', P .. 'after:' .. key, r.no) or ''
  local memo, name = joins.beside().decided, key .. ' ' .. r.no
  local stays = r.stage == 'FAILURE' and 'fail' or r.stage == 'SKIPPED' and 'skip'
  local decided, because, stage
  local count, from = #list / 4, stays and memo[name] or 0
  while from < count do
    local numbers = joins.fours(string.sub(list, 4 * from + 1, 4 * math.min(from + 100, count)))
    for i, text in ipairs(call('HMGET', P .. 'step:' .. key, unpack(numbers))) do
      local source, its = numbers[i], string.match(text, '^%u+')
      if not joins.is_over(its) or joins.is_untold(run, source, r.no) then
        pending = pending + 1
      elseif not decided then
        local effect = joins.effect(r, its)
        if effect ~= 'count' then decided, because, stage = effect, source, its end
        if decided and decided == stays then
          memo[name] = from + i - 1
          return pending, decided, because, stage
        end
      end
    end
    joins.beside().looked = joins.beside().looked + #numbers
    from = from + #numbers
  end
  -- Something else holds now: what stands before counts, too.
  if stays and memo[name] then
    memo[name] = nil
    return joins.decision(run, r)
  end
  return pending, decided, because, stage
end

-- Opens a step again that is over and did not run, unless nothing changed for it.
function joins.reopen(run, r)
  local key = run.f.key
  if r.born or not joins.is_over(r.stage) then return end
  local plan = joins.plan(key, r.no)
  if not plan then return end
  local pending, decided, because, stage = joins.decision(run, r)
  if decided == 'fail' and r.stage == 'FAILURE' then
    -- Another one is the reason now.
    joins.drop_ended(plan.id)
    return joins.record(run, r.no, 'FAILURE', joins.upstream(run, because, stage))
  end
  local never = r.failure and pending == 0 and not decided
  if r.stage == 'SKIPPED' and (decided == 'skip' or never) then return end
  joins.drop_ended(plan.id)
  joins.open_row(run, r, 'PENDING')
  r.pending = pending
  joins.put_row(key, r)
  joins.untell(run, r)
  if decided then
    joins.take_effect(run, r, decided, because, stage)
  elseif pending == 0 then
    joins.due(run, r)
  end
end

-- Takes the end of a step back from those that were told of it.
function joins.untell(run, r)
  local function is_end(work) return work and work.source == r.no and joins.is_end(work) end
  local till, queued = joins.END, nil
  for i = run.first, run.last do
    if is_end(run.queue[i]) then
      queued = i
      break
    end
  end
  if is_end(run.current) then
    till = run.current.from
    run.current = nil
  elseif queued then
    till = run.queue[queued].from
    for i = queued, run.last do run.queue[i] = run.queue[i + 1] end
    run.last = run.last - 1
  elseif run.f.busy then
    local place, work = joins.end_work(run.f.key, r.no)
    if place then
      till = work.from
      joins.drop_work(run.f.key, place, work)
    end
  end
  if till == 0 then return end
  joins.add(run, { source = r.no, revive = true, from = 0, till = till, tick = r.opened })
end

-- Whether the end of 'source' is still to be told to 'target'.
function joins.is_untold(run, source, target)
  local function is_it(work)
    return work and work.source == source and joins.is_end(work) and work.from <= target
  end
  if is_it(run.current) then return true end
  for i = run.first, run.last do
    if is_it(run.queue[i]) then return true end
  end
  if not run.f.busy then return false end
  local _, work = joins.end_work(run.f.key, source)
  return is_it(work)
end

-- A message was published.
function joins.fallout_published(m)
  local o = joins.beside()
  if not o.queues[m.q] then
    o.queues[m.q] = true
    note(o.order, m.q)
  end
  for _, time in ipairs({ m.eta or m.ex, m.ex }) do
    if not o.next or time < o.next then o.next = time end
  end
end

-- A step's message is final.
function joins.ended(key, no, state, result, now)
  local f = joins.flow_at(key)
  if not f then return end
  local r = joins.row(key, no)
  if not r or r.stage ~= 'PUBLISHED' then return end
  local run = joins.run(f, now)
  joins.end_row(run, r, state)
  joins.put_row(key, r, r.passes and state == 'SUCCESS' and result or nil)
  run.ended = { no = no, stage = state }
  joins.add(run, joins.end_of(no))
  joins.go(run, { left = RULES.SWEEP })
end

-- Why a message of a step that is final may have no new life.
function joins.may_renew(r)
  local key = r.w and joins.by_id(r.w)
  local step = key and joins.row(key, r.wn)
  if not step or step.born then return nil end
  return { 'refused', OUTCOME.never_ran(r.id, N(r.wn), r.w) }
end

-- A step's message was given a new life.
function joins.renewed(r, now)
  local f = r.w and joins.flow_of(r.w)
  local step = f and joins.row(f.key, r.wn)
  if not step or not joins.is_over(step.stage) then return end
  local run = joins.run(f, now)
  joins.open_row(run, step, 'PUBLISHED')
  joins.put_row(f.key, step)
  joins.untell(run, step)
  joins.go(run, { left = RULES.SWEEP })
end

-- Goes on with what operations left; how many rows may still be looked at.
function joins.sweep(now, left)
  local budget = { left = left }
  while budget.left > 0 do
    local key = call('ZRANGE', P .. 'flows_busy', 0, 0)[1]
    if not key then break end
    local f = joins.flow_at(key)
    if f then joins.go(joins.run(f, now), budget) else call('ZREM', P .. 'flows_busy', key) end
  end
  return budget.left
end

-- Forgets steps of what is over and outlived, or too many; how many rows may still be looked at. The rows of one go
-- together, behind its last step: Redis frees them beside the script.
function joins.forget(now, count, left)
  while left > 0 do
    local first = call('ZRANGE', P .. 'flows_over', 0, 0, 'WITHSCORES')
    if not first[1] then break end
    local spent = tonumber(call('HGET', P .. 'n', 'spent') or 0)
    if tonumber(first[2]) > now and spent <= count * RULES.IDS then break end
    local key = N(tonumber(first[1], 16))
    local kept = call('HMGET', P .. 'flow:' .. key, 'id', 'there', 'steps')
    -- From now on it is not found any more.
    if kept[1] and not kept[2] then call('HDEL', P .. 'flow_ids', kept[1]) end
    local there = tonumber(kept[2] or kept[3] or 0)
    local gone = math.min(there, left)
    left = left - gone
    joins.count_over(gone, -1)
    if gone < there then
      call('HSET', P .. 'flow:' .. key, 'there', there - gone)
    else
      for _, part in ipairs(joins.PARTS) do call('UNLINK', P .. part .. key) end
      call('UNLINK', P .. 'flow:' .. key)
      call('ZREM', P .. 'flows_over', first[1])
      call('ZREM', P .. 'flows_busy', key)
    end
  end
  return left
end

-- It waits no longer for what its schedule fired before: joins.release goes on with it.
function joins.set_free(key, now)
  if call('EXISTS', P .. 'flow:' .. key) == 0 then return end
  call('HSET', P .. 'flow:' .. key, 'held', '')
  note(joins.beside().released, { key, now })
end

-- Publishes the first steps of every workflow that waits no longer; the end of every operation.
function joins.release()
  local n = 1
  while fallout and fallout.released[n] do
    local key, now = unpack(fallout.released[n])
    n = n + 1
    local f = joins.flow_at(key)
    if f then
      f.held = nil
      local run, work = joins.run(f, now), joins.beginning(0)
      -- Not within the budget of what is told: as many as a launch publishes. Of a canceled one every step is ended,
      -- whatever its place, by whoever cancels it.
      local budget = { left = joins.AT_ONCE }
      if f.canceled then work.from = nil end
      while work.from and budget.left > 0 do
        joins.begin(run, nil, work, budget)
        if work.from then joins.pop(run) end
      end
      if work.from then joins.add(run, work) end
      joins.go(run, { left = RULES.SWEEP })
    end
  end
end

-- What the operation did beside its answer, as Rust reads it; an empty text: nothing.
function joins.told()
  local o = fallout
  if not o or #o.order + #o.ended + #o.over + #o.fires + #o.reopened == 0 and not o.more then return '' end
  return { o.order, o.next and N(o.next) or '', o.ended, o.over, o.fires, o.reopened, o.more and 1 or 0 }
end
