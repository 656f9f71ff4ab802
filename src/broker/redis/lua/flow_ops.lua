-- What is asked of workflows: launched, looked at, canceled, retried. See joins.lua and flows.lua.

-- A workflow as flows.rs writes it; late: first steps from this number on are not published at once. Its steps stand there, or were uploaded before under the name 'stage'.
function joins.read_launch()
  local w = { id = take(), name = take(), uid = given(), keep = taken(), fs = given(), fp = given() }
  w.held, w.sinks, w.roots, w.late, w.count, w.stage = given(), take(), take(), taken(), taken(), given()
  if not w.stage then w.steps = joins.taken_steps() end
  return w
end

-- Steps: each its id, name and task; flags; those before it; what is published; those after it.
function joins.taken_steps()
  local steps = {}
  for i = 1, taken() do
    steps[i] = { of = take(), flags = take(), after = take(), plan = take(), targets = take() }
  end
  return steps
end

-- Writes steps, the first of which has this number, under a name: a key, or that of an upload, which has all plans.
function joins.put_steps(name, from, steps, late, all_plans)
  local rows, of, plans, after, targets = {}, {}, {}, {}, {}
  local function put(list, no, value)
    list[#list + 1] = no
    list[#list + 1] = value
  end
  for i, step in ipairs(steps) do
    local no = from + i - 1
    local born = step.after == '' and no < late
    put(rows, no, (born and 'PUBLISHED 0 0 b' or 'PENDING ' .. #step.after / 4 .. ' 0 ') .. step.flags)
    put(of, no, step.of)
    if all_plans or not born then put(plans, no, step.plan) end
    if step.after ~= '' then put(after, no, step.after) end
    if step.targets ~= '' then put(targets, no, step.targets) end
  end
  joins.fill(P .. 'step:' .. name, rows)
  joins.fill(P .. 'of:' .. name, of)
  joins.fill(P .. 'plan:' .. name, plans)
  joins.fill(P .. 'after:' .. name, after)
  joins.fill(P .. 'next:' .. name, targets)
end

joins.STAGED = { 'step:', 'of:', 'plan:', 'after:', 'next:' }
joins.STAGED_S = 600

function joins.drop_staged(stage)
  for _, part in ipairs(joins.STAGED) do call('UNLINK', P .. part .. stage) end
end

-- Uploads a part of the steps of a workflow that is too large for one script. What is not launched goes by itself.
function ops.launch_part()
  local stage, from, late = take(), taken(), taken()
  if from == 0 then joins.drop_staged(stage) end
  joins.put_steps(stage, from, joins.taken_steps(), late, true)
  for _, part in ipairs(joins.STAGED) do call('EXPIRE', P .. part .. stage, joins.STAGED_S) end
  return { 'done' }
end

-- What is published of a first step, before or after the workflow is stored; nil: it was uploaded and is gone.
function joins.root_plan(w, no)
  if w.steps then return joins.planned(w.steps[no + 1].plan) end
  return joins.plan(w.stage, no)
end

function joins.new_flow(w, now)
  local key = N(row.next('flow'))
  call(
    'HSET', P .. 'flow:' .. key, 'id', w.id, 'name', w.name, 'uid', w.uid or '', 'launched', N(now), 'steps', w.count,
    'keep', N(w.keep), 'fs', w.fs or '', 'fp', w.fp or ''
  )
  call('HSET', P .. 'flow_ids', w.id, key)
  if w.sinks ~= '' then call('SET', P .. 'sinks:' .. key, w.sinks) end
  if w.steps then
    joins.put_steps(key, 0, w.steps, w.late)
  else
    for _, part in ipairs(joins.STAGED) do
      if call('EXISTS', P .. part .. w.stage) == 1 then
        call('RENAME', P .. part .. w.stage, P .. part .. key)
        call('PERSIST', P .. part .. key)
      end
    end
    w.stage = key
  end
  local f = {
    key = key, id = w.id, name = w.name, uid = w.uid, launched = now, steps = w.count, open = w.count, failed = 0,
    lost = 0, fs = w.fs and string.sub(w.fs, 2), fp = w.fp, held = w.held, keep = w.keep, tick = 0,
  }
  joins.put_flow(f)
  return f
end

-- Stores a workflow whose id is not known and publishes its first steps; held: all of it waits for what its schedule
-- fired before.
function joins.launch(w, held, now)
  w.held = held and '1' or nil
  if held then w.late = 0 end
  local roots = joins.fours(w.roots)
  local f = joins.new_flow(w, now)
  joins.fire_begins(f)
  if f.held then return end
  local run = joins.run(f, now)
  local late = false
  for _, no in ipairs(roots) do
    if no >= w.late then
      late = true
      break
    end
    local plan = joins.root_plan(w, no)
    -- Only what was published later has a plan.
    if not w.steps then call('HDEL', P .. 'plan:' .. f.key, no) end
    -- It is stored as published.
    local entry = joins.call(plan, now)
    if entry and joins.store(entry, now) then
      joins.fallout_published(entry.m)
    else
      local r = joins.row(f.key, no)
      r.stage = 'PENDING'
      joins.publish(run, r, plan)
    end
  end
  if late then joins.add(run, joins.beginning(w.late)) end
  joins.go(run, { left = RULES.SWEEP })
end

-- The answer where the first steps would pass a bound: bounds are a queue, its bound, and how many first steps it has,
-- in turn.
function joins.no_room(w, bounds)
  if #bounds == 0 then return nil end
  local most, added = {}, {}
  local passes = false
  for i = 1, #bounds, 3 do
    most[bounds[i]] = tonumber(bounds[i + 1])
    passes = passes or row.length(bounds[i]) + tonumber(bounds[i + 2]) > most[bounds[i]]
  end
  if not passes then return nil end
  for _, no in ipairs(joins.fours(w.roots)) do
    local m = joins.message(joins.root_plan(w, no), 0).m
    if most[m.q] and not row.exists(m.id) then
      added[m.q] = (added[m.q] or 0) + 1
      if row.length(m.q) + added[m.q] > most[m.q] then return { 'full', m.q, N(most[m.q]) } end
    end
  end
  return nil
end

function ops.launch()
  local now, unfit, linked, bounds, w = taken(), given(), given(), many(), joins.read_launch()
  local staged = w.stage
  if staged and call('HLEN', P .. 'step:' .. staged) ~= w.count then return { 'unstaged', w.id } end
  local answer = joins.launched(w, now, unfit, linked, bounds)
  if staged then joins.drop_staged(staged) end
  return answer
end

function joins.launched(w, now, unfit, linked, bounds)
  local verdict
  if linked and w.count > 0 then
    local first = joins.message(joins.root_plan(w, 0), now)
    local verdicts, nothing = claim.admit({ first }, now)
    if not verdicts then return nothing end
    verdict = verdicts[1]
    local known = claim.not_stored(first.m.id, verdict)
    if known then return { 'published', known } end
  end
  local there = joins.head(w.id)
  if there then return { 'launched', there } end
  if row.exists(w.id) then return { 'record', row.record(w.id) } end
  local full = joins.no_room(w, bounds)
  if full then return full end
  if unfit then return { 'refused', unfit } end
  joins.launch(w, w.held, now)
  if verdict then return { 'published', claim.stored(verdict[2]) } end
  return { 'launched', '' }
end

-- Answers with a part of a workflow.
function ops.look()
  local id, from, limit, results = take(), taken(), taken(), take() == '1'
  local f = joins.flow_of(id)
  if not f then return { 'seen', '' } end
  limit = math.max(1, math.min(limit, results and joins.RESULTS or joins.LOOK))
  local rows, steps = joins.page(f, from, limit, results), {}
  for i, r in ipairs(rows) do
    local of = joins.of(f.key, r.no)
    local published = r.stage == 'PUBLISHED'
    local known = { '', '' }
    if published then known[1] = call('HGET', row.key(of[1]), 's') or '' end
    if results then known[2] = call('HGET', row.key(of[1]), 'o') or '' end
    local after = call('HGET', P .. 'after:' .. f.key, r.no) or ''
    steps[i] = { r.no, of[1], of[2], of[3], after, r.failure and 1 or 0, r.stage, known[1], known[2] }
  end
  return { 'seen', joins.told_head(f), steps, joins.behind(rows, limit) or '' }
end

-- Ends a part of a workflow.
function joins.cancel(id, from, now)
  local f = joins.flow_of(id)
  if not f then return { 'flowed', '', 0, {}, 0, '' } end
  local open, leased, nxt = f.open, {}, nil
  if open > 0 then
    f.canceled = '1'
    joins.put_flow(f)
    local rows = joins.page(f, from, joins.PART)
    nxt = joins.behind(rows, joins.PART)
    for _, listed in ipairs(rows) do
      if listed.stage == 'PENDING' then
        -- Read anew: the end of another step of this part may have ended it.
        local r = joins.row(f.key, listed.no)
        if r.stage == 'PENDING' then joins.conclude(joins.run(f, now), r, 'REVOKED', OUTCOME.revoked) end
      elseif listed.stage == 'PUBLISHED' then
        joins.put_flow(f)
        local its = joins.step_id(f.key, listed.no)
        local known = row.read(its)
        if known and not FINAL[known.s] then
          if known.tk then leased[#leased + 1] = its else life.revoke(its, now) end
        end
        f = joins.flow_at(f.key) or f
      end
    end
    joins.write(joins.run(f, now))
  end
  return { 'flowed', joins.told_head(f), math.max(open - f.open, 0), leased, 0, nxt or '' }
end

-- Begins a part of a workflow anew.
joins.LOOKED = 50000
function joins.retry(id, from, now)
  local f = joins.flow_of(id)
  if not f then return { 'flowed', '', 0, {}, 0, '' } end
  local budget = { left = RULES.SWEEP }
  if f.busy then
    -- What is still to be told decides what is to begin anew.
    joins.go(joins.run(f, now), budget)
    if f.busy then return { 'flowed', joins.told_head(f), 0, {}, 0, from } end
  end
  f.canceled = nil
  local open, gone = f.open, 0
  local rows = joins.page(f, from, joins.PART)
  local nxt = joins.behind(rows, joins.PART)
  joins.put_flow(f)
  for i, listed in ipairs(rows) do
    -- Read anew: a step before it may have opened it.
    local r = joins.row(f.key, listed.no)
    if joins.is_over(r.stage) then
      if r.born and joins.FAILED[r.stage] then
        local its = joins.step_id(f.key, r.no)
        local renewed = call('EXISTS', row.key(its)) == 1 and not life.requeue(its, now)
        if not renewed then gone = gone + 1 end
      elseif not r.born then
        local run = joins.run(f, now)
        joins.reopen(run, r)
        joins.go(run, budget)
      end
      f = joins.flow_at(f.key) or f
    end
    -- Steps after very many others take longer: then a part is shorter.
    if joins.beside().looked > joins.LOOKED and i < #rows then
      nxt = listed.no + 1
      break
    end
  end
  return { 'flowed', joins.told_head(f), math.max(f.open - open, 0), {}, gone, nxt or '' }
end

function ops.cancel_flow() return joins.cancel(take(), taken(), taken()) end
function ops.retry_flow() return joins.retry(take(), taken(), taken()) end
