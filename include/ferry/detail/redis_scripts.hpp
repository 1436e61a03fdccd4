// layer 1
// What a Redis does for ferry, as scripts that it runs one at a time: so each of them happens wholly or not at all. They may be
// run twice, where it is not known whether the first was heard: the second changes nothing and answers the same.
//
// Keys, behind the prefix. A number in a key or a list has 20 digits, so that texts sort as numbers do.
//
//   format                  of all this
//   grace                   until this lapses no server is forgotten; forget_after: for how long that is, where Redis was started
//   servers                 set of names; alive:S (as long as its lease) and known:S (longer): tokens of a server's life
//   nodes                   set of ids; n:N: owner and epoch of a node's journal, its last order, its status
//   o:N  t:N:O  r:N  w:N    a journal: its orders, each task, orders by request id, orders of tasks that were changed
//   s:N                     numbers of the replies that came last
//   owned:S                 nodes whose journals are that server's
//   p:S                     what it has posted, by id: the node and order
//   e:S  eh:S               ends that wait for it: their places, and what they are
//   u:S                     what it holds of contents: each the content's name, a blank, and more
//   c:C  bytes              contents: references, size and chunks; their bytes in all, of tasks (t) and replies (r)
//   places                  the newest place
//   run                     of Redis, that all this is from
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace ferry::detail {

enum class redis_script : std::size_t {
    revive,
    hello,
    beat,
    leave,
    acquire,
    fetch,
    append,
    update,
    settle,
    post,
    withdraw,
    end,
    ends,
    acknowledge,
    announce,
    reserve,
    chunk,
    release,
    unhold,
};
inline constexpr std::size_t redis_script_count = 19;

/// Those that a Redis without memory refuses. The others free it, or keep a server alive.
constexpr bool needs_room(redis_script which) noexcept {
    return which == redis_script::append || which == redis_script::post || which == redis_script::reserve ||
           which == redis_script::chunk;
}

/// A content of no more bytes comes with its task; another one is read in pieces.
inline constexpr std::size_t redis_inline_bytes = 4096;

/// Before each of them. Words that follow the server's name and the channels' prefix are numbered from 3 on.
inline constexpr std::string_view redis_common = R"lua(
local P, me, C = KEYS[1], ARGV[1], ARGV[2]
local call = redis.call
local function pad(n) return string.rep('0', 20 - #n) .. n end
local function owns(node, epoch)
  local o = call('HMGET', P .. 'n:' .. node, 'server', 'epoch')
  return o[1] == me and o[2] == epoch
end
local function use(id, times) call('HINCRBY', P .. 'c:' .. id, 'refs', times or 1) end
local function drop(id, times)
  local c = P .. 'c:' .. id
  if call('EXISTS', c) == 0 or call('HINCRBY', c, 'refs', -(times or 1)) > 0 then return end
  local v = call('HMGET', c, 'size', 'of')
  if v[1] and v[1] ~= '0' then call('HINCRBY', P .. 'bytes', v[2], '-' .. v[1]) end
  call('UNLINK', c)
end
local function room(of, size, most)
  if call('HINCRBY', P .. 'bytes', of, size) <= tonumber(most) then return true end
  if size ~= '0' then call('HINCRBY', P .. 'bytes', of, '-' .. size) end
  return false
end
-- 'ok' where the content is there, or is made of the data.
local function keep(id, of, size, has_data, data, most)
  local c = P .. 'c:' .. id
  local has = call('HGET', c, 'size')
  if has then return has == size and 'ok' or 'gone' end
  if has_data ~= '1' then return 'gone' end
  if not room(of, size, most) then return 'full' end
  call('HSET', c, 'size', size, 'of', of, 'refs', 0, '0', data)
  return 'ok'
end
-- What a reader needs of a content. One that it will read in pieces, it holds: by a name that is the same where this is run
-- twice. The last word of such a script is a part of that.
local function open(id, by)
  if not id or id == '' then return false end
  local c = P .. 'c:' .. id
  local size = call('HGET', c, 'size')
  if not size then return {id, '0', false, '0', ''} end
  if tonumber(size) <= 4096 then return {id, size, call('HGET', c, '0'), '0', ''} end
  local hold = id .. ' ' .. by .. ' ' .. ARGV[#ARGV]
  if call('HSETNX', P .. 'u:' .. me, hold, 1) == 1 then use(id) end
  return {id, size, false, call('HGET', c, 'chunk'), hold}
end
local function let_go(server)
  for _, hold in ipairs(call('HKEYS', P .. 'u:' .. server)) do drop(string.match(hold, '^[^ ]*')) end
  call('DEL', P .. 'u:' .. server)
end
-- Not where Redis was away for longer than servers are known: then this server's name has lapsed as well, or one that has come
-- back has seen that its own had. Nor where Redis was started anew. That `grace` tells, for as long again.
local function is_forgotten(server)
  return call('EXISTS', P .. 'known:' .. server, P .. 'grace') == 0 and call('EXISTS', P .. 'known:' .. me) == 1
end
local function changed(node, order)
  call('ZADD', P .. 'w:' .. node, call('HINCRBY', P .. 'n:' .. node, 'changes', 1), order)
end
local function notify(node)
  local owner = call('HGET', P .. 'n:' .. node, 'server')
  if not owner or call('EXISTS', P .. 'alive:' .. owner) == 0 then return 0 end
  call('PUBLISH', C .. 'to:' .. owner, 'tasks ' .. node)
  return 1
end
local function settle(node, order)
  local t = P .. 't:' .. node .. ':' .. order
  local v = call('HMGET', t, 'content', 'reply', 'request')
  if v[1] then drop(v[1]) end
  if v[2] then drop(v[2]) end
  if v[3] and v[3] ~= '' and call('HGET', P .. 'r:' .. node, v[3]) == order then call('HDEL', P .. 'r:' .. node, v[3]) end
  call('DEL', t)
  call('ZREM', P .. 'o:' .. node, order)
  call('ZREM', P .. 'w:' .. node, order)
end
-- Some of the tasks behind an order, and whether there are more; with those changed since, all of them, unless `since` is ''.
local function page(node, after, since)
  local orders = call('ZRANGEBYLEX', P .. 'o:' .. node, '(' .. after, '+', 'LIMIT', 0, 200)
  local more = #orders == 200 and 1 or 0
  if since ~= '' then
    for _, each in ipairs(call('ZRANGEBYSCORE', P .. 'w:' .. node, '(' .. since, '+inf')) do
      if each <= after then orders[#orders + 1] = each end
    end
  end
  local out = {}
  for _, order in ipairs(orders) do
    local v = call('HMGET', P .. 't:' .. node .. ':' .. order, 'id', 'urgent', 'request', 'wants', 'attempts', 'taken',
                   'accepted', 'expires', 'until', 'withdrawn', 'content', 'reply', 'number')
    v[11], v[12] = open(v[11], 't' .. node .. order), open(v[12], 'r' .. node .. order)
    v[14] = order
    out[#out + 1] = v
  end
  return {more, out, call('HGET', P .. 'n:' .. node, 'changes') or '0'}
end
-- Higher than all before, also those that Redis has forgotten: the time, in microseconds, unless that went back.
local function number()
  local t = call('TIME')
  local out = string.format('%.0f', math.max(tonumber(call('GET', P .. 'places') or '0') + 1, t[1] * 1000000 + t[2]))
  call('SET', P .. 'places', out)
  return out
end
local function place() return pad(number()) end
)lua";

/// In the order of `redis_script`.
inline constexpr std::array<std::string_view, redis_script_count> redis_bodies{
    // revive: before all else over a connection. A Redis that was started again, or stands in for another one, may have lost its
    // last writes: what owners know of journals counts no more, and no epoch that was lost is given again.
    R"lua(
local run = string.match(call('INFO', 'server'), 'run_id:(%x+)')
local was = call('GET', P .. 'run')
if was == run then return {'ok'} end
call('SET', P .. 'run', run)
if not was then return {'ok'} end
call('SET', P .. 'grace', '1', 'PX', call('GET', P .. 'forget_after') or '600000')
for _, node in ipairs(call('SMEMBERS', P .. 'nodes')) do
  local owner = call('HGET', P .. 'n:' .. node, 'server')
  if owner then call('PUBLISH', C .. 'to:' .. owner, 'lost ' .. node) end
  call('HINCRBY', P .. 'n:' .. node, 'epoch', 1000)
end
return {'ok'}
)lua",
    // hello: token, lease, forget_after, format. A new life of this server's begins.
    R"lua(
local format = call('GET', P .. 'format')
if format and format ~= ARGV[6] then return {'format', format} end
call('PUBLISH', C .. 'all', '')
call('PUBLISH', C .. 'to:' .. me, '')
call('SET', P .. 'format', ARGV[6])
if call('GET', P .. 'known:' .. me) ~= ARGV[3] then let_go(me) end
call('SET', P .. 'forget_after', ARGV[5])
call('SET', P .. 'alive:' .. me, ARGV[3], 'PX', ARGV[4])
call('SET', P .. 'known:' .. me, ARGV[3], 'PX', ARGV[5])
call('SADD', P .. 'servers', me)
return {'ok'}
)lua",
    // beat: token, lease, forget_after. This server is there; what of others is not there any more is taken over, some of it at a time.
    R"lua(
local alive = call('GET', P .. 'alive:' .. me)
local lapsed = alive and 0 or 1
if not alive then alive = call('GET', P .. 'known:' .. me) end
if alive and alive ~= ARGV[3] then return {'replaced'} end
local forgotten = 1 - call('EXISTS', P .. 'known:' .. me)
call('SET', P .. 'alive:' .. me, ARGV[3], 'PX', ARGV[4])
call('SET', P .. 'known:' .. me, ARGV[3], 'PX', ARGV[5])
call('SADD', P .. 'servers', me)
if forgotten == 1 then call('SET', P .. 'grace', '1', 'PX', ARGV[5]) end
local free, ends = {}, 0
for _, s in ipairs(call('SMEMBERS', P .. 'servers')) do
  if s ~= me and call('EXISTS', P .. 'alive:' .. s) == 0 then
    local owned = call('SRANDMEMBER', P .. 'owned:' .. s, 500)
    for _, node in ipairs(owned) do
      call('SMOVE', P .. 'owned:' .. s, P .. 'owned:' .. me, node)
      call('HSET', P .. 'n:' .. node, 'server', me)
      call('HINCRBY', P .. 'n:' .. node, 'epoch', 1)
      call('PUBLISH', C .. 'to:' .. s, 'lost ' .. node)
      free[#free + 1] = node
    end
    if #owned < 500 and is_forgotten(s) then
      call('DEL', P .. 'p:' .. s)
      local places = call('ZRANGE', P .. 'e:' .. s, 0, 199)
      for _, each in ipairs(places) do
        local was = cmsgpack.unpack(call('HGET', P .. 'eh:' .. s, each))
        if was[8] ~= '' then
          was[1] = '0'
          local now = place()
          call('ZADD', P .. 'e:' .. me, 0, now)
          call('HSET', P .. 'eh:' .. me, now, cmsgpack.pack(was))
          ends = 1
        end
        call('ZREM', P .. 'e:' .. s, each)
        call('HDEL', P .. 'eh:' .. s, each)
      end
      if #places < 200 then
        let_go(s)
        call('SREM', P .. 'servers', s)
      end
    end
  end
end
return {'ok', free, ends, forgotten, lapsed}
)lua",
    // leave: token.
    R"lua(
if call('GET', P .. 'alive:' .. me) ~= ARGV[3] then return {'ok'} end
call('DEL', P .. 'alive:' .. me)
call('PUBLISH', C .. 'all', 'left')
return {'ok'}
)lua",
    // acquire: node, hold. Some of its tasks come with it.
    R"lua(
local node = ARGV[3]
local n = P .. 'n:' .. node
call('SADD', P .. 'nodes', node)
local before = call('HGET', n, 'server')
if before ~= me then
  if before then
    call('SREM', P .. 'owned:' .. before, node)
    call('PUBLISH', C .. 'to:' .. before, 'lost ' .. node)
  end
  call('SADD', P .. 'owned:' .. me, node)
end
call('HSET', n, 'server', me)
call('HINCRBY', n, 'epoch', 1)
return {'ok', page(node, '00000000000000000000', ''), call('HGET', n, 'epoch'), call('ZRANGE', P .. 's:' .. node, 0, -1)}
)lua",
    // fetch: node, epoch, after, changes since, hold.
    R"lua(
local node, after = ARGV[3], ARGV[5]
if not owns(node, ARGV[4]) then return {'lost'} end
return {'ok', page(node, after, ARGV[6])}
)lua",
    // append: node, epoch, order, id, urgent, request, wants, attempts, taken, accepted, expires, content or reply, number; content: id, size, has_data, most, data
    R"lua(
local node, order = ARGV[3], ARGV[5]
if not owns(node, ARGV[4]) then return {'lost'} end
local t = P .. 't:' .. node .. ':' .. order
if call('EXISTS', t) == 1 then return {'ok'} end
local kept = keep(ARGV[16], ARGV[14] == 'reply' and 'r' or 't', ARGV[17], ARGV[18], ARGV[20], ARGV[19])
if kept ~= 'ok' then return {kept} end
use(ARGV[16])
call('HSET', t, 'id', ARGV[6], 'urgent', ARGV[7], 'request', ARGV[8], 'wants', ARGV[9], 'attempts', ARGV[10], 'taken', ARGV[11],
     'accepted', ARGV[12], 'expires', ARGV[13], ARGV[14], ARGV[16], 'number', ARGV[15])
call('ZADD', P .. 'o:' .. node, 0, order)
if order > pad(call('HGET', P .. 'n:' .. node, 'last') or '0') then
  call('HSET', P .. 'n:' .. node, 'last', (string.gsub(order, '^0+', '')))
end
return {'ok', tonumber(ARGV[17]) > 4096 and open(ARGV[16], node .. order)}
)lua",
    // update: node, epoch, order, attempts, taken, has_reply, number; content: id, size, has_data, most, data
    R"lua(
local node, order = ARGV[3], ARGV[5]
if not owns(node, ARGV[4]) then return {'lost'} end
local t = P .. 't:' .. node .. ':' .. order
if call('EXISTS', t) == 0 then return {'ok'} end
if ARGV[8] == '1' then
  local kept = keep(ARGV[10], 'r', ARGV[11], ARGV[12], ARGV[14], ARGV[13])
  if kept ~= 'ok' then return {kept} end
  use(ARGV[10])
  local before = call('HGET', t, 'reply')
  call('HSET', t, 'reply', ARGV[10], 'number', ARGV[9])
  if before then drop(before) end
end
call('HSET', t, 'attempts', ARGV[6], 'taken', ARGV[7])
if ARGV[7] == '1' then
  local content = call('HGET', t, 'content')
  if content then
    call('HDEL', t, 'content')
    drop(content)
  end
end
return {'ok'}
)lua",
    // settle: node, epoch, order.
    R"lua(
if not owns(ARGV[3], ARGV[4]) then return {'lost'} end
settle(ARGV[3], ARGV[5])
return {'ok'}
)lua",
    // post: node, id, urgent, request, wants, accepted, expires, until; content: id, size, has_data, most, data
    R"lua(
local node, id, request, wants, til = ARGV[3], ARGV[4], ARGV[6], ARGV[7], ARGV[10]
local n, p = P .. 'n:' .. node, P .. 'p:' .. me
if call('EXISTS', n) == 0 then return {'unknown'} end
if call('HEXISTS', p, id) == 1 then return {'ok', notify(node)} end
local asker = 'a:' .. pad(id) .. me
local open_one = request ~= '' and call('HGET', P .. 'r:' .. node, request)
if open_one and call('HGET', P .. 't:' .. node .. ':' .. open_one, 'withdrawn') == '1' then open_one = false end
if open_one then
  local t = P .. 't:' .. node .. ':' .. open_one
  call('HSET', t, asker, 1)
  if wants == '1' then
    local is = call('HMGET', t, 'wants', 'until')
    if is[1] ~= '1' or pad(til) > pad(is[2]) then call('HSET', t, 'wants', '1', 'until', til) end
  end
  changed(node, open_one)
  call('HSET', p, id, open_one .. node)
  return {'ok', notify(node)}
end
local kept = keep(ARGV[11], 't', ARGV[12], ARGV[13], ARGV[15], ARGV[14])
if kept ~= 'ok' then return {kept} end
use(ARGV[11])
call('HINCRBY', n, 'last', 1)
local order = pad(call('HGET', n, 'last'))
call('HSET', P .. 't:' .. node .. ':' .. order, 'id', id, 'urgent', ARGV[5], 'request', request, 'wants', wants,
     'attempts', '0', 'taken', '0', 'accepted', ARGV[8], 'expires', ARGV[9], 'until', til, 'content', ARGV[11], 'number', '0',
     asker, 1)
call('ZADD', P .. 'o:' .. node, 0, order)
if request ~= '' then call('HSET', P .. 'r:' .. node, request, order) end
call('HSET', p, id, order .. node)
return {'ok', notify(node)}
)lua",
    // withdraw: node, id.
    R"lua(
local order = call('HGET', P .. 'p:' .. me, ARGV[4])
if not order then return {'ok'} end
order = string.sub(order, 1, 20)
local t = P .. 't:' .. ARGV[3] .. ':' .. order
if call('EXISTS', t) == 0 then return {'ok'} end
call('HSET', t, 'withdrawn', '1')
changed(ARGV[3], order)
return {'ok', notify(ARGV[3])}
)lua",
    // end: node, epoch, order or 0s, kind, code, text, attempts, request, number, has_reply; content: id, size, has_data, most, data
    R"lua(
local node, order, reply_number, has_reply = ARGV[3], ARGV[5], ARGV[11], ARGV[12] == '1'
if not owns(node, ARGV[4]) then return {'lost'} end
local is_task = order ~= '00000000000000000000'
local t, s = P .. 't:' .. node .. ':' .. order, P .. 's:' .. node
if is_task and call('EXISTS', t) == 0 then return {'ok'} end
if has_reply and reply_number ~= '0' and call('ZSCORE', s, reply_number) then has_reply = false end
if not is_task and not has_reply then return {'ok'} end
local content = ''
if has_reply then
  content = ARGV[13]
  local kept = keep(content, 'r', ARGV[14], ARGV[15], ARGV[17], ARGV[16])
  if kept ~= 'ok' then return {kept} end
  use(content)
  if reply_number ~= '0' then
    call('ZADD', s, number(), reply_number)
    call('ZREMRANGEBYRANK', s, 0, -1025)
  end
end
local function tell(server, id)
  if is_forgotten(server) then
    call('HDEL', P .. 'p:' .. server, id)
    if content == '' then return end
    server, id = me, '0'
  end
  local at = place()
  call('SADD', P .. 'servers', server)
  call('ZADD', P .. 'e:' .. server, 0, at)
  call('HSET', P .. 'eh:' .. server, at,
       cmsgpack.pack({id, node, ARGV[10], ARGV[6], ARGV[7], ARGV[8], ARGV[9], content, reply_number}))
  if content ~= '' then use(content) end
  call('PUBLISH', C .. 'to:' .. server, 'ends')
end
if is_task then
  for _, field in ipairs(call('HKEYS', t)) do
    if string.sub(field, 1, 2) == 'a:' then
      tell(string.sub(field, 23), (string.gsub(string.sub(field, 3, 22), '^0+', '')))
    end
  end
  settle(node, order)
else
  tell(me, '0')
end
if content ~= '' then drop(content) end
return {'ok'}
)lua",
    // ends: after, hold. Some of them.
    R"lua(
local places = call('ZRANGEBYLEX', P .. 'e:' .. me, '(' .. ARGV[3], '+', 'LIMIT', 0, 200)
local out = {}
for _, each in ipairs(places) do
  local v = cmsgpack.unpack(call('HGET', P .. 'eh:' .. me, each))
  v[8] = open(v[8], 'e' .. each)
  v[10] = each
  out[#out + 1] = v
end
return {'ok', #places == 200 and 1 or 0, out}
)lua",
    // acknowledge: place.
    R"lua(
local was = call('HGET', P .. 'eh:' .. me, ARGV[3])
if not was then return {'ok'} end
was = cmsgpack.unpack(was)
if was[8] ~= '' then drop(was[8]) end
call('HDEL', P .. 'p:' .. me, was[1])
call('ZREM', P .. 'e:' .. me, ARGV[3])
call('HDEL', P .. 'eh:' .. me, ARGV[3])
return {'ok'}
)lua",
    // announce: node, epoch, status, since.
    R"lua(
if not owns(ARGV[3], ARGV[4]) then return {'lost'} end
call('HSET', P .. 'n:' .. ARGV[3], 'status', ARGV[5], 'since', ARGV[6])
call('PUBLISH', C .. 'all', 'seen ' .. ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. #me .. ' ' .. me .. ARGV[3])
return {'ok'}
)lua",
    // reserve: content, of, size, most, chunk. Room for a content that is about to be written.
    R"lua(
local c = P .. 'c:' .. ARGV[3]
if call('EXISTS', c) == 1 then return {'ok'} end
if not room(ARGV[4], ARGV[5], ARGV[6]) then return {'full'} end
call('HSET', c, 'size', ARGV[5], 'of', ARGV[4], 'refs', 1, 'chunk', ARGV[7])
call('HSET', P .. 'u:' .. me, ARGV[3] .. ' written', 1)
return {'ok'}
)lua",
    // chunk: content, number, data.
    R"lua(
local c = P .. 'c:' .. ARGV[3]
if call('HEXISTS', c, 'size') == 0 then return {'gone'} end
call('HSET', c, ARGV[4], ARGV[5])
return {'ok'}
)lua",
    // release: content, hold.
    R"lua(
if call('HDEL', P .. 'u:' .. me, ARGV[4]) == 1 then drop(ARGV[3]) end
return {'ok'}
)lua",
    // unhold: the last words of scripts whose answers nobody has taken.
    R"lua(
local by = {}
for i = 3, #ARGV do by[ARGV[i]] = true end
for _, hold in ipairs(call('HKEYS', P .. 'u:' .. me)) do
  if by[string.match(hold, '[^ ]*$')] then
    call('HDEL', P .. 'u:' .. me, hold)
    drop(string.match(hold, '^[^ ]*'))
  end
end
return {'ok'}
)lua",
};

}  // namespace ferry::detail
