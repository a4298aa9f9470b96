-- The rules of kling_async/protocol/leases.py, stated for Redis and Valkey; a test holds the two together, so change both.
-- Needs a function `clock()` before it, which returns the server's time in seconds.
-- KEYS: meta, owners, leases, queue, asks, lost, orphans, all of one lane and one hash slot.
-- ARGV: a report and the terms, as JSON. Returns a ruling as JSON.

local META, OWNERS, LEASES, QUEUE, ASKS, LOST, ORPHANS = unpack(KEYS)
local report, terms = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local UNLIMITED, LOOKED_AT = 1000000, 200
local REACH = 12
local IDLE_WORTH, LEAST_PATIENCE, MOST_PATIENCE = 20, 2, 12
local QUIET, LONGEST_QUIET, RISE, LONGEST_PAUSE = 30, 600, 5, 60
local call = redis.call
local now = clock()

local NUMBERS = {'turn', 'limit', 'held', 'settled_at', 'paused_until', 'lowered_to', 'lowered_at', 'strikes', 'clock', 'order'}
local book = {generation = call('HGET', META, 'generation') or ''}
for i, value in ipairs(call('HMGET', META, unpack(NUMBERS))) do
  book[NUMBERS[i]] = tonumber(value or '0')
end

local function text(number) return string.format('%.6f', number) end

local function lease_of(job)
  local found = call('HGET', LEASES, job)
  return found and cjson.decode(found) or nil
end

local function keep_lease(job, lease)
  call('HSET', LEASES, job, cjson.encode(lease))
  if lease.owner == '' then
    call('ZADD', ORPHANS, text(lease['until']), job)
  else
    call('ZREM', ORPHANS, job)
  end
end

local function drop(job, lease)
  call('HDEL', LEASES, job)
  call('ZREM', ORPHANS, job)
  book.held = book.held - lease.slots
end

local function asker_of(job)
  local found = call('HGET', ASKS, job)
  return found and cjson.decode(found) or nil
end

local function leave_queue(job)
  call('HDEL', ASKS, job)
  call('ZREM', QUEUE, job)
end

local function each_pair(flat, visit)
  for i = 1, #flat, 2 do visit(flat[i], flat[i + 1]) end
end

local function each_lease(visit)
  each_pair(call('HGETALL', LEASES), function(job, found) visit(job, cjson.decode(found)) end)
end

local function shift(seconds)
  book.paused_until = book.paused_until + seconds
  book.lowered_at = book.lowered_at + seconds
  each_pair(call('ZRANGE', OWNERS, 0, -1, 'WITHSCORES'), function(owner, seen)
    call('ZADD', OWNERS, text(tonumber(seen) + seconds), owner)
  end)
  each_lease(function(job, lease)
    if lease.window ~= 0 then lease.window = lease.window + seconds end
    if lease['until'] ~= 0 then lease['until'] = lease['until'] + seconds end
    keep_lease(job, lease)
  end)
end

local function remember()
  local forgot = report.generation == book.generation and report.turn > book.turn
  if book.generation == '' or forgot then
    book.generation = report.nonce
    book.settled_at = now + terms.settle
  end
  book.turn = book.turn + 1
  if now < book.clock then
    shift(now - book.clock)
    book.settled_at = now + terms.settle
  end
  book.clock = now
end

local function forget_owner(owner, seen)
  call('ZREM', OWNERS, owner)
  each_pair(call('HGETALL', ASKS), function(job, found)
    if cjson.decode(found).owner == owner then leave_queue(job) end
  end)
  each_pair(call('HGETALL', LOST), function(token, heir)
    if heir == owner then call('HDEL', LOST, token) end
  end)
  each_lease(function(job, lease)
    if lease.owner == owner then
      lease.owner = ''
      if lease.running or lease.sender ~= '' then
        lease['until'] = math.max(lease.window, seen + terms.patience + terms.orphan)
      else
        lease['until'] = now
      end
      keep_lease(job, lease)
    end
  end)
end

local function bury()
  local silent = call('ZRANGEBYSCORE', OWNERS, '-inf', '(' .. text(now - terms.patience), 'WITHSCORES')
  each_pair(silent, function(owner, seen) forget_owner(owner, tonumber(seen)) end)
  for _, job in ipairs(call('ZRANGEBYSCORE', ORPHANS, '-inf', text(now))) do
    drop(job, lease_of(job))
  end
end

local function ceiling()
  local limit = book.limit > 0 and book.limit or UNLIMITED
  if book.lowered_to == 0 then return limit end
  local quiet = math.min(LONGEST_QUIET, QUIET * 2 ^ (book.strikes - 1))
  local risen = math.floor(math.max(0, now - book.lowered_at - quiet) / RISE)
  return math.min(limit, book.lowered_to + risen)
end

local function displace(owner, token)
  if owner ~= '' then call('HSET', LOST, token, owner) end
end

local function finish(job, token)
  local lease, asker = lease_of(job), asker_of(job)
  if lease and lease.token == token then drop(job, lease) end
  if asker and asker.token == token then leave_queue(job) end
end

local function refuse(refusal)
  local lease = lease_of(refusal.job)
  if not lease or lease.token ~= refusal.token then return end
  local below = ceiling()
  drop(refusal.job, lease)
  if now >= book.paused_until then
    local learned = book.lowered_to ~= 0 and below < (book.limit > 0 and book.limit or UNLIMITED)
    book.strikes = learned and book.strikes + 1 or 1
  end
  local pause = refusal.pause > 0 and refusal.pause or 2 ^ (book.strikes - 1)
  book.paused_until = math.max(book.paused_until, now + math.min(LONGEST_PAUSE, pause))
  book.lowered_to, book.lowered_at = math.max(1, math.min(below, book.held)), now
end

local function hold(claim)
  local lease = lease_of(claim.job)
  if lease and lease.token ~= claim.token then
    if lease.owner ~= '' and not claim.firm then
      call('HSET', LOST, claim.token, report.owner)
      return
    end
    displace(lease.owner, lease.token)
  end
  lease = lease or {slots = 0, window = 0, sender = ''}
  book.held = book.held + claim.slots - lease.slots
  lease.owner, lease.token, lease.slots = report.owner, claim.token, claim.slots
  lease.running, lease['until'] = true, 0
  keep_lease(claim.job, lease)
  local asker = asker_of(claim.job)
  if asker and (claim.firm or asker.token == claim.token) then
    leave_queue(claim.job)
    if asker.token ~= claim.token then displace(asker.owner, asker.token) end
  end
end

local granted = {}

local function grant(job, token, inherited)
  granted[#granted + 1] = {job, token, inherited}
end

local function hand_over(job, lease, token)
  lease.owner, lease.token, lease['until'] = report.owner, token, 0
  keep_lease(job, lease)
  grant(job, token, lease.running or lease.sender ~= '')
end

local function ask(claim)
  local lease = lease_of(claim.job)
  local present = lease or asker_of(claim.job)
  if present and present.token ~= claim.token then
    if present.owner ~= '' and not claim.firm then
      call('HSET', LOST, claim.token, report.owner)
      return
    end
    displace(present.owner, present.token)
    present.owner, present.token = report.owner, claim.token
  end
  if lease then
    hand_over(claim.job, lease, claim.token)
    return
  end
  if not present then
    book.order = book.order + 1
    call('ZADD', QUEUE, book.order, claim.job)
    present = {owner = report.owner, token = claim.token, slots = claim.slots, passed = 0}
  end
  call('HSET', ASKS, claim.job, cjson.encode(present))
end

local function close(job, token)
  local lease = lease_of(job)
  if lease and lease.sender == token then
    lease.window = 0
    keep_lease(job, lease)
  end
end

local function open(wish)
  local lease = lease_of(wish.job)
  if not lease then return -1 end
  if lease.token ~= wish.token then return -2 end
  if lease.sender ~= '' and lease.sender ~= wish.token and lease.window > now then
    return lease.window - now
  end
  lease.window, lease.sender = now + wish.seconds, wish.token
  keep_lease(wish.job, lease)
  return 0
end

local function has_no_patience(asker, top)
  local fair = math.min(MOST_PATIENCE * asker.slots, math.floor(IDLE_WORTH * asker.slots * asker.slots / top))
  return asker.passed >= math.max(LEAST_PATIENCE * asker.slots, fair)
end

local function let_in(job, asker)
  leave_queue(job)
  keep_lease(job, {owner = report.owner, token = asker.token, slots = asker.slots,
    running = false, window = 0, sender = '', ['until'] = 0})
  book.held = book.held + asker.slots
  grant(job, asker.token, false)
end

local function serve()
  local top, taken, behind, blocked, blocked_job = ceiling(), book.held, 0, nil, nil
  for _, job in ipairs(call('ZRANGE', QUEUE, 0, LOOKED_AT - 1)) do
    if blocked then behind = behind + 1 end
    if behind > REACH then break end
    local asker, lease = asker_of(job), lease_of(job)
    local heard = tonumber(call('ZSCORE', OWNERS, asker.owner) or '0') >= now - terms.fresh
    if lease then
      if asker.owner == report.owner then
        leave_queue(job)
        displace(lease.owner, lease.token)
        hand_over(job, lease, asker.token)
      end
    elseif heard and not (book.limit > 0 and asker.slots > book.limit) then
      if taken > 0 and taken + asker.slots > top then
        if not blocked then blocked, blocked_job = asker, job end
        if has_no_patience(blocked, top) then break end
      else
        taken = taken + asker.slots
        if asker.owner == report.owner then
          let_in(job, asker)
          if blocked then blocked.passed = blocked.passed + asker.slots end
        end
      end
    end
  end
  if blocked then call('HSET', ASKS, blocked_job, cjson.encode(blocked)) end
end

local function told_lost()
  local found = {}
  if call('HLEN', LOST) > 0 then
    each_pair(call('HGETALL', LOST), function(token, heir)
      if heir == report.owner then
        found[#found + 1] = token
        call('HDEL', LOST, token)
      end
    end)
    table.sort(found)
  end
  return found
end

remember()
bury()
local forgotten = not call('ZSCORE', OWNERS, report.owner)
call('ZADD', OWNERS, text(now), report.owner)
if type(report.limit) == 'number' then book.limit = report.limit end
if book.limit == 0 and type(report.guess) == 'number' then book.limit = report.guess end
for _, pair in ipairs(report.ends) do finish(pair[1], pair[2]) end
for _, refusal in ipairs(report.refusals) do refuse(refusal) end
for _, claim in ipairs(report.holds) do hold(claim) end
for _, claim in ipairs(report.asks) do ask(claim) end
for _, pair in ipairs(report.closes) do close(pair[1], pair[2]) end
local opened = {}
for _, wish in ipairs(report.opens) do opened[#opened + 1] = {wish.token, open(wish)} end
local pause = math.max(0, book.settled_at - now, book.paused_until - now)
if pause == 0 then serve() end

local fields = {'generation', book.generation}
for _, name in ipairs(NUMBERS) do
  fields[#fields + 1] = name
  fields[#fields + 1] = text(book[name])
end
call('HSET', META, unpack(fields))

return cjson.encode({
  generation = book.generation, turn = book.turn, forgotten = forgotten, granted = granted, lost = told_lost(),
  opened = opened, limit = book.limit, ceiling = ceiling(), held = book.held,
  waiting = call('ZCARD', QUEUE), owners = call('ZCARD', OWNERS), pause = pause,
})
