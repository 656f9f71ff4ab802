-- The express way: a plain message of a Celery client is handed out, runs and succeeds without ever being a row. It
-- stays in kombu's unacked until its end; in:NODE says whose it is (queue, id, token, and when it started), flying
-- which ids are on this way. Its end leaves a packed record (d:ID, forgotten by itself) and its result. Whatever else
-- happens to it makes it a row first (store_in in celery.lua). What is done for each message is done for all of them
-- in one call where Redis allows that: this script is run for every few messages.
--
-- ARGV: prefix of kombu's keys, prefix of results' keys, this node, then ends, starts, and queues to take from.

local K, METAS, NODE = ARGV[1], ARGV[2], ARGV[3]
local P = K .. 'taskd.'
local IN, UNACKED, INDEX, FLYING = P .. 'in:' .. NODE, K .. 'unacked', K .. 'unacked_index', P .. 'flying'
local call = redis.call
local at = 4
local RECENT = 10000

-- Others took over what this node held: it has to find out what is left.
if call('HEXISTS', P .. 'taken_over', NODE) == 1 then return { 'lapsed' } end

local function meta(id, seconds, text)
  local key = METAS .. 'celery-task-meta-' .. id
  local new
  if seconds == '0' then new = call('SET', key, text, 'NX') else new = call('SET', key, text, 'EX', seconds, 'NX') end
  if not new then
    -- SUCCESS is final: whoever wrote it first was told of it.
    if string.find(call('GET', key), '"status": ?"SUCCESS"') then return end
    if seconds == '0' then call('SET', key, text) else call('SETEX', key, seconds, text) end
  end
  call('PUBLISH', key, text)
end

-- Ends: tag, whose it is, id, packed record, seconds to keep it, number, member, seconds of the result, result.
local settled = {}
local n = tonumber(ARGV[at])
at = at + 1
if n > 0 then
  local tags = {}
  for i = 1, n do tags[i] = ARGV[at + 9 * (i - 1)] end
  local held = call('HMGET', IN, unpack(tags))
  local gone, ids, recent = {}, {}, {}
  for i = 1, n do
    local whose, id = ARGV[at + 1], ARGV[at + 2]
    if held[i] and string.sub(held[i], 1, #whose) == whose then
      settled[i] = 1
      gone[#gone + 1] = ARGV[at]
      ids[#ids + 1] = id
      call('SET', P .. 'd:' .. id, ARGV[at + 3], 'EX', ARGV[at + 4])
      recent[#recent + 1] = ARGV[at + 5]
      recent[#recent + 1] = ARGV[at + 6]
      if ARGV[at + 8] ~= '' then meta(id, ARGV[at + 7], ARGV[at + 8]) end
    else
      settled[i] = 0
    end
    at = at + 9
  end
  if #gone > 0 then
    call('HDEL', IN, unpack(gone))
    call('HDEL', UNACKED, unpack(gone))
    call('ZREM', INDEX, unpack(gone))
    call('SREM', FLYING, unpack(ids))
    call('ZADD', P .. 'recent', unpack(recent))
    call('ZREMRANGEBYRANK', P .. 'recent', 0, -RECENT - 1)
  end
end

-- Starts: tag, and what stands in in:NODE from now on. One that somebody made a row of starts as a row.
local started = {}
n = tonumber(ARGV[at])
at = at + 1
if n > 0 then
  local tags, set = {}, {}
  for i = 1, n do tags[i] = ARGV[at + 2 * (i - 1)] end
  local held = call('HMGET', IN, unpack(tags))
  for i = 1, n do
    started[i] = held[i] and 1 or 0
    if held[i] then
      set[#set + 1] = tags[i]
      set[#set + 1] = ARGV[at + 2 * i - 1]
    end
  end
  if #set > 0 then call('HSET', IN, unpack(set)) end
  at = at + 2 * n
end

-- Which of these ids nobody knows yet; they are on this way from now on.
local function unknown(ids)
  local new, keys, fresh = {}, {}, {}
  for i, id in ipairs(ids) do
    keys[2 * i - 1] = P .. 'm:' .. id
    keys[2 * i] = P .. 'd:' .. id
  end
  local flying = call('SMISMEMBER', FLYING, unpack(ids))
  local memos = call('EXISTS', P .. 'memos') > 0
  local some = memos or call('EXISTS', unpack(keys)) > 0 or call('EXISTS', P .. 'flow_ids') > 0
  for i, id in ipairs(ids) do
    if new[id] == nil then
      local known = flying[i] == 1
      if some and not known then
        known = call('EXISTS', keys[2 * i - 1], keys[2 * i]) > 0 or call('HEXISTS', P .. 'flow_ids', id) == 1
        -- Its revoke came before it did: that is seen where rows are made.
        known = known or memos and call('HEXISTS', P .. 'memos', 'revoked:' .. id) == 1
      end
      new[id] = not known
      if not known then fresh[#fresh + 1] = id end
    end
  end
  if #fresh > 0 then call('SADD', FLYING, unpack(fresh)) end
  return new
end

-- Queues: name, and how many messages at most.
local taken = {}
n = tonumber(ARGV[at])
at = at + 1
for q = 1, n do
  local queue, most = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  local raws = {}
  local closed = call('SISMEMBER', P .. 'paused', queue) == 1 or call('EXISTS', P .. 'purging:' .. queue) == 1
  -- What waits as a row has its turn too: half of what is asked for is left to it, as far as there is so much. (Whoever
  -- asked puts both in the order of their ranks.) Lanes are not counted: each of their messages may have to wait.
  local mixed = call('EXISTS', P .. 'ready:' .. queue, P .. 'lanes:' .. queue, P .. 'opens:' .. queue) > 0
  if mixed then
    local laned = call('EXISTS', P .. 'lanes:' .. queue) == 1
    local left = laned and 0 or most - call('ZCARD', P .. 'ready:' .. queue)
    most = math.max(left, math.floor((most + call('HINCRBY', P .. 'n', 'halves', 1) % 2) / 2))
  end
  if not closed then
    for _, step in ipairs({ '', '\6\0223', '\6\0226', '\6\0229' }) do
      if #raws < most then
        for _, raw in ipairs(call('RPOP', K .. queue .. step, most - #raws) or {}) do raws[#raws + 1] = raw end
      end
    end
  end
  local list, first, seq = {}, 0, 0
  if #raws > 0 then
    -- Whole seconds: numbers with a fraction are slow to read, and kombu looks at it after an hour.
    local score = call('TIME')[1]
    local quoted = ', "", ' .. cjson.encode(queue) .. ']'
    local tags, ids, at_id, index, unacked = {}, {}, {}, {}, {}
    for i, raw in ipairs(raws) do
      local from = string.find(raw, '"delivery_tag"', 1, true)
      local tag = from and string.match(raw, '^: ?"([^"\\]+)"', from + 14)
      -- One without a tag is nobody's to take back: it gets one of its own.
      tag = tag or ('taskd-' .. redis.sha1hex(raw))
      tags[i] = tag
      index[2 * i - 1], index[2 * i] = score, tag
      unacked[2 * i - 1], unacked[2 * i] = tag, '[' .. raw .. quoted
      -- Celery writes the id of the task there; whoever reads the message looks whether it is.
      from = string.find(raw, '"correlation_id"', 1, true)
      local id = from and string.match(raw, '^: ?"([^"\\%z]+)"', from + 16)
      if id then
        ids[#ids + 1] = id
        at_id[i] = id
      end
    end
    call('ZADD', INDEX, unpack(index))
    call('HSET', UNACKED, unpack(unacked))
    local new = {}
    if #ids > 0 then
      first = call('HINCRBY', P .. 'n', 'token', #raws) - #raws
      seq = call('HINCRBY', P .. 'n', 'seq', #raws) - #raws
      new = unknown(ids)
    end
    local whose = {}
    for i, raw in ipairs(raws) do
      local id = at_id[i]
      if id and not new[id] then id = nil end
      -- A second one of the same id in this batch is not new any more.
      if id then new[id] = false end
      whose[2 * i - 1] = tags[i]
      whose[2 * i] = id and (queue .. '\0' .. id .. '\0' .. string.format('%.0f', first + i) .. '\0') or queue
      list[3 * i - 2], list[3 * i - 1], list[3 * i] = tags[i], id or '', raw
    end
    call('HSET', IN, unpack(whose))
  end
  taken[q] = { mixed and 1 or 0, string.format('%.0f', first), string.format('%.0f', seq), list }
end
return { 'done', settled, started, taken }
