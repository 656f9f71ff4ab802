-- The rows of messages in Redis, and the indexes over them. One script answers a batch of operations; the files of
-- this directory are joined in the order that script.rs names. Functions stand in tables: Lua 5.1 allows 200 local
-- variables, and 60 from outside in one function.
--
-- ARGV: prefix of kombu's keys, prefix of results' keys, this node, then each operation as its name, how many
-- arguments follow, and these.
-- A number that may have more than 14 digits is written by N: tostring would round it.

local K, METAS, NODE = ARGV[1], ARGV[2], ARGV[3]
local P = K .. 'taskd.'
local call = redis.call

-- What the operation did beside its answer; see Fallout in model/workflow.rs.
local fallout

-- Queues that got messages, and when the first of what was stored for later is due: told to the other nodes.
local woken, woken_due = {}, nil

-- Reading the arguments of an operation.
local at = 4
local function take()
  local value = ARGV[at]
  at = at + 1
  return value
end
local function taken() return tonumber(take()) end
-- An argument that may be absent is the empty text.
local function given()
  local value = take()
  if value == '' then return nil end
  return value
end
local function many()
  local list = {}
  for i = 1, taken() do list[i] = take() end
  return list
end

local function N(n)
  if type(n) == 'string' then return n end
  return string.format('%.0f', n)
end

-- rules.rs
local RULES = {
  AGEING = 60000, SWEEP = 1000, ID_KEPT = 86400000, IDS = 10, PASSES = 16, CREDIT = 1000,
  PAYLOAD = { a = true, k = true, h = true, o = true, u = true, ce = true, cr = true, xa = true, eta = true, ex = true },
  TICKS = 1024, WRONG_CLOCK = 86400000, NODE_KEPT = 86400000, HELD = 100, RUNNING = 100,
}
function RULES.rank(ready, priority) return ready - (tonumber(priority) or 0) * RULES.AGEING end

local FINAL = { SUCCESS = true, FAILURE = true, REVOKED = true, EXPIRED = true, DEAD = true }

-- What of a row is looked at here; the rest (arguments, outcome) is carried unread.
local CORE = {
  'sq', 's', 'q', 't', 'p', 'l', 'rk', 'c', 'tk', 'n', 'lo', 'due', 'ex', 'fi', 'xa', 'un', 'hd', 'sl', 'fs', 'w', 'wn',
  'wp', 'uk', 'uh', 'uc', 'up', 'uu', 'ua', 'nd', 'pk', 'r', 'mr', 'eta', 'st',
  'cf',
}
local NUMBERS = {
  rk = true, n = true, lo = true, due = true, ex = true, fi = true, xa = true, wn = true, uu = true, r = true,
  mr = true, eta = true, p = true, up = true, st = true, sq = true, tk = true,
}

local row, lane, claim, life, joins, schedule, ops = {}, {}, {}, {}, {}, {}, {}

function row.key(id) return P .. 'm:' .. id end

function row.read(id)
  local values = call('HMGET', row.key(id), unpack(CORE))
  if not values[1] then return row.unpacked(id) end
  local r, old = { id = id }, { id = id }
  for i, name in ipairs(CORE) do
    local value = values[i]
    if value then
      if NUMBERS[name] then value = tonumber(value) end
      r[name], old[name] = value, value
    end
  end
  r.old = old
  return r
end

-- Whether an id is known: as a row, as a packed record, or of a message on the express way (express.lua).
function row.exists(id)
  return call('EXISTS', row.key(id), P .. 'd:' .. id) > 0 or call('SISMEMBER', P .. 'flying', id) == 1
end

-- The fields of a packed record (express.rs): texts in a row, each behind its length. What is past its time is not
-- given: only that the id was known.
function row.packed(id)
  local text = call('GET', P .. 'd:' .. id)
  if not text then return nil end
  local list, from, past = {}, 1, false
  while from <= #text do
    local colon = string.find(text, ':', from, true)
    local last = colon + tonumber(string.sub(text, from, colon - 1))
    list[#list + 1] = string.sub(text, colon + 1, last)
    from = last + 1
  end
  for i = 1, #list, 2 do
    if list[i] == 'xa' then past = tonumber(list[i + 1]) <= tonumber(call('TIME')[1]) * 1000 end
  end
  if not past then return list end
  local slim = { 'sl', '1' }
  for i = 1, #list, 2 do
    if not RULES.PAYLOAD[list[i]] then
      slim[#slim + 1] = list[i]
      slim[#slim + 1] = list[i + 1]
    end
  end
  return slim
end

-- Makes a row of a packed record.
function row.unpacked(id)
  local list = row.packed(id)
  if not list then return nil end
  call('DEL', P .. 'd:' .. id)
  call('HSET', row.key(id), unpack(list))
  local all, r = row.fields(list), { id = id }
  for _, name in ipairs(CORE) do r[name] = all[name] end
  call('ZREM', P .. 'recent', row.member(r))
  row.save(r)
  return r
end

-- What stands for a row in an index: ties of a score are in the order of acceptance.
function row.member(r) return string.format('%016x', r.sq) .. ':' .. r.id end
function row.id_of(member) return string.sub(member, 18) end

function row.lane_of(r) return r.t .. '\0' .. r.l end

function row.class(r)
  if FINAL[r.s] then
    if r.sl then return 'slim' end
    return r.s == 'DEAD' and 'dead' or 'kept'
  end
  if r.tk then return 'leased' end
  if r.hd then return 'held' end
  if r.s == 'SCHEDULED' or r.s == 'RETRY' then return 'scheduled' end
  return r.un and 'unknown' or 'waiting'
end

local COUNTED = { waiting = 'w', scheduled = 's', held = 's', leased = 'l', dead = 'd', unknown = 'u' }

-- The index entries of a row, as key -> score, and what it counts as, as field -> 1.
function row.image(r)
  local keys, counts = {}, {}
  local class = row.class(r)
  if class == 'waiting' then
    if r.l then keys['wl:' .. r.q .. '\0' .. row.lane_of(r)] = r.rk else keys['ready:' .. r.q] = r.rk end
  elseif class == 'scheduled' then keys['due'] = r.due or 0
  elseif class == 'leased' then keys['nl:' .. r.nd] = r.tk
  elseif class == 'unknown' then keys['unknown'] = r.sq
  elseif class == 'kept' then
    keys['kept'] = r.fi
    if r.xa then keys['kept_own'], keys['own'] = r.xa, r.fi else keys['kept_default'] = r.fi end
  elseif class == 'dead' then keys['dead'] = r.fi
  elseif class == 'slim' then keys['slim'] = r.fi
  end
  if class ~= 'slim' then keys['all'] = r.sq end
  if class == 'kept' or class == 'slim' then return keys, counts end
  if class ~= 'leased' and class ~= 'dead' then
    if r.ex then keys['expires'] = r.ex end
  end
  if class ~= 'dead' then
    if r.fs then keys['fires:' .. r.fs] = r.sq end
    counts['\0live'] = 1
  end
  counts[r.q .. '\0' .. COUNTED[class]] = 1
  if class == 'leased' and r.s ~= 'RUNNING' then counts[r.q .. '\0i'] = 1 end
  return keys, counts
end

-- Writes a row that was read or made here, with what changed of its indexes.
function row.save(r)
  local old = r.old
  if r.ua then claim.follow(r) end
  local set, gone = {}, {}
  for _, name in ipairs(CORE) do
    local value = r[name]
    if value ~= (old and old[name]) then
      if value == nil then
        gone[#gone + 1] = name
      else
        set[#set + 1] = name
        set[#set + 1] = type(value) == 'number' and N(value) or value
      end
    end
  end
  local key = row.key(r.id)
  if #set > 0 then call('HSET', key, unpack(set)) end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
  local before, counted = {}, {}
  if old then before, counted = row.image(old) end
  local after, counts = row.image(r)
  local was = old and row.member(old)
  local member = row.member(r)
  for name, _ in pairs(before) do
    if after[name] == nil or was ~= member then call('ZREM', P .. name, was) end
  end
  for name, score in pairs(after) do
    if before[name] ~= score or was ~= member then call('ZADD', P .. name, N(score), member) end
  end
  for name, _ in pairs(counted) do
    if not counts[name] then call('HINCRBY', P .. 'counts', name, -1) end
  end
  for name, _ in pairs(counts) do
    if not counted[name] then call('HINCRBY', P .. 'counts', name, 1) end
  end
  local class = row.class(r)
  if class == 'waiting' then
    woken[r.q] = true
    if r.l then lane.enter(r) end
  elseif class == 'scheduled' and r.due and (not woken_due or r.due < woken_due) then
    woken_due = r.due
  end
  local copy = { id = r.id }
  for _, name in ipairs(CORE) do copy[name] = r[name] end
  r.old = copy
end

-- Forgets a row wholly.
function row.drop(r)
  local keys, counts = row.image(r.old)
  local member = row.member(r.old)
  for name, _ in pairs(keys) do call('ZREM', P .. name, member) end
  for name, _ in pairs(counts) do call('HINCRBY', P .. 'counts', name, -1) end
  call('DEL', row.key(r.id))
  r.old = nil
end

function row.counted(name) return tonumber(call('HGET', P .. 'counts', name) or 0) end

-- What max_length bounds: all of a queue that did not start.
function row.length(queue)
  local n = call('HMGET', P .. 'counts', queue .. '\0w', queue .. '\0s', queue .. '\0i')
  return tonumber(n[1] or 0) + tonumber(n[2] or 0) + tonumber(n[3] or 0)
end

function row.next(counter) return call('HINCRBY', P .. 'n', counter, 1) end

-- When a stored message becomes ready: a wall clock that goes back must not put messages before older ones.
function row.ready_again(now)
  local clock = tonumber(call('HGET', P .. 'n', 'clock') or 0)
  if now <= clock then return clock end
  call('HSET', P .. 'n', 'clock', N(now))
  return now
end

-- When a new message becomes ready. An empty store follows the wall clock back.
function row.ready_new(now)
  if row.counted('\0live') == 0 then
    call('HSET', P .. 'n', 'clock', N(now))
    return now
  end
  return row.ready_again(now)
end

-- The fields of a message as they were given, and the row of its first life.
-- fields: name, value, name, value ... of everything that is not changed by its life.
function row.fields(list)
  local r = {}
  for i = 1, #list, 2 do
    local name, value = list[i], list[i + 1]
    if NUMBERS[name] then value = tonumber(value) end
    r[name] = value
  end
  return r
end

-- Begins a life. m: what row.fields made, with id; list: the fields to store, or nil where they are there.
function row.begin(m, list, state, due, now, claims)
  local rank = 0
  if not due then rank = RULES.rank(row.ready_new(now), m.p) end
  local key = row.key(m.id)
  if list then call('HSET', key, unpack(list)) end
  m.old = nil
  m.sq = row.next('seq')
  m.s, m.due, m.rk, m.n, m.lo, m.c = state, due, rank, 0, 0, '1'
  if claims then claim.new(m, now, now) end
  row.save(m)
  return m
end

-- Ends a life; outcome is its JSON.
function row.finish(r, state, outcome, now, expires_ms)
  r.s, r.tk, r.due, r.fi, r.un, r.hd, r.nd = state, nil, nil, now, nil, nil, nil
  r.xa = nil
  if expires_ms and state ~= 'DEAD' then r.xa = now + expires_ms end
  call('HSET', row.key(r.id), 'o', outcome)
  life.out(r)
end

-- Drops the payload of a finished row, or the whole of it where its id need not be known any more.
function row.outlive(r, now)
  if (r.fi or 0) + RULES.ID_KEPT > now then
    call('HDEL', row.key(r.id), 'a', 'k', 'h', 'o', 'u', 'ce', 'cr')
    r.uk, r.uh, r.uc, r.up, r.eta, r.ex, r.xa, r.cf = nil, nil, nil, nil, nil, nil, nil, nil
    r.sl = '1'
    row.save(r)
  else
    row.drop(r)
  end
end

-- The record of an id as Rust reads it: every field, or an empty list.
function row.record(id)
  local list = call('HGETALL', row.key(id))
  if #list == 0 then list = row.packed(id) or list end
  if #list > 0 then
    list[#list + 1] = 'id'
    list[#list + 1] = id
  end
  return list
end

-- Takes the life of a row away: its indexes, and all that is looked at here. What is carried unread stays.
function row.forget_life(r)
  local keys, counts = row.image(r.old)
  local member = row.member(r.old)
  for name, _ in pairs(keys) do call('ZREM', P .. name, member) end
  for name, _ in pairs(counts) do call('HINCRBY', P .. 'counts', name, -1) end
  call('HDEL', row.key(r.id), 'o', unpack(CORE))
  r.tk, r.due, r.st, r.fi, r.xa, r.un, r.hd, r.sl, r.uu, r.ua, r.nd, r.pk = nil
  r.old = nil
end
