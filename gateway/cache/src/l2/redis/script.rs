//! Operations that must be atomic, as scripts: Redis runs each without interruption.
//!
//! Decision: a script is sent by its hash, and as a whole if the server doesn't know it (after a
//! restart, a failover, `SCRIPT FLUSH`). Orders are compared as texts of 20 digits, because Lua's
//! numbers lose the low bits of a u64. Before them is the generation of the purge log, because only
//! orders of one generation can be compared. A script reads everything that could make it refuse
//! before its first write, and Redis refuses memory at the first write or not at all, so no script
//! stops half way.
//!
//! What a script compares with may have been written by somebody else. So a birth or a tombstone
//! counts only as long as one of ours can live, and one of another type, without an expiry or of
//! another generation does not count: nothing that is forged here keeps writes out for longer than
//! that.

use std::sync::LazyLock;

use lamina_base::redis::driver::Script;

/// Keys: record. Arguments: limit. Returns nothing, {bytes} if it is too long, or {bytes, ms left,
/// record}.
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local n = redis.call('STRLEN', KEYS[1])
if n == 0 then return false end
if n > tonumber(ARGV[1]) then return {n} end
return {n, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1])}",
    )
});

/// `later(key, stamp, ms)`: the stored value, if it is later than `stamp`, of the same generation,
/// and expires within `ms`.
macro_rules! later {
    () => {
        "local function later(key, stamp, longest)
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
  local left, was = redis.call('PTTL', key), redis.call('GETRANGE', key, 0, 35)
  if left <= 0 or left > tonumber(longest) then return nil end
  if string.sub(was, 1, 16) ~= string.sub(stamp, 1, 16) then return nil end
  return was > stamp and was or nil
end
"
    };
}

/// `holds(key, token)`: whether the lease under a key has this token.
macro_rules! holds {
    () => {
        "local function holds(key, token)
  if redis.call('TYPE', key).ok ~= 'string' then return false end
  return redis.call('GETRANGE', key, 0, 15) == token
end
"
    };
}

/// Keys: record, born, tombstone, lease. Arguments: record, life in ms, born, token or nothing, the
/// longest life of a record and of a tombstone in ms. Returns 1: stored, 0: overtaken, -1: the
/// lease is not ours.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(concat!(
        later!(),
        holds!(),
        "if ARGV[4] ~= '' and not holds(KEYS[4], ARGV[4]) then return -1 end
if later(KEYS[3], ARGV[3], ARGV[6]) then return 0 end
if later(KEYS[2], ARGV[3], ARGV[5]) and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1",
    ))
});

/// Keys: note of invalidations. Arguments: a note of nothing, ms. Returns {0, the note}, or {1, a
/// note of nothing} if there was none. Then one is begun, if Redis has memory for it, because it is
/// needed once something is loaded.
pub(super) static READ_NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('TYPE', KEYS[1]).ok == 'string' then
  return {0, redis.call('GETRANGE', KEYS[1], 0, 63)}
end
redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, ARGV[1]}",
    )
});

/// Keys: note of invalidations. Arguments: a note of nothing, ms. Lets the note live at least this
/// long; a note of a former generation is replaced.
pub(super) static KEEP_NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local is_text = redis.call('TYPE', KEYS[1]).ok == 'string'
if not is_text or redis.call('GETRANGE', KEYS[1], 0, 15) < string.sub(ARGV[1], 1, 16) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1",
    )
});

/// A script that carries invalidations. Redis runs it even when its memory is used up, if it knows
/// the flag for that (from version 7 on). The script writes little, and removes more than that.
pub(super) struct InvalidationScript {
    pub(super) flagged: Script,
    pub(super) plain: Script,
}

impl InvalidationScript {
    pub(super) fn from_lua(lua: &str) -> Self {
        Self {
            flagged: Script::from_lua(format!("#!lua flags=allow-oom\n{lua}")),
            plain: Script::from_lua(lua),
        }
    }
}

/// Keys: note of invalidations. Arguments: a note, ms. Returns 1 if there was a note, otherwise 0.
/// The later note stays.
pub(super) static INVALIDATE: LazyLock<InvalidationScript> = LazyLock::new(|| {
    InvalidationScript::from_lua(
        "local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return 0 end
local at, left = ARGV[1], math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]))
if kind == 'string' then
  local was = redis.call('GETRANGE', KEYS[1], 0, 63)
  if string.sub(was, 1, 36) > string.sub(at, 1, 36) then at = was end
end
redis.call('SET', KEYS[1], at, 'PX', string.format('%.0f', left))
return 1",
    )
});

/// Keys: note of invalidations. Arguments: the note that was found, a new note, ms. Replaces the
/// note that was found.
pub(super) static REPLACE_NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return 0 end
if redis.call('GETRANGE', KEYS[1], 0, 63) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

/// Keys: record, born, tombstone. Arguments: order, the longest life of a record, the life of a
/// tombstone in ms. A record of a load after the order stays, because a repeated delete must not
/// reach it.
pub(super) static DELETE: LazyLock<InvalidationScript> = LazyLock::new(|| {
    InvalidationScript::from_lua(concat!(
        later!(),
        "local tomb = later(KEYS[3], ARGV[1], ARGV[3]) or ARGV[1]
if not later(KEYS[2], ARGV[1], ARGV[2]) then redis.call('UNLINK', KEYS[1], KEYS[2]) end
redis.call('SET', KEYS[3], tomb, 'PX', ARGV[3])
return 1",
    ))
});

/// Keys: lease. Arguments: value, ms, a value to take over or nothing. Returns 1: it is ours;
/// otherwise the beginning of the stored value. A value that is not a string, or never expires, is
/// not a lease of a node and is replaced.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('TYPE', KEYS[1]).ok == 'string' then
  local was = redis.call('GETRANGE', KEYS[1], 0, 63)
  if redis.call('PTTL', KEYS[1]) > 0 and was ~= ARGV[3] then return was end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    )
});

/// Keys: lease. Arguments: token, ms, the next value. Returns 1 if it was prolonged.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(concat!(
        holds!(),
        "if not holds(KEYS[1], ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
return 1",
    ))
});

/// Keys: lease. Arguments: token, channel, key. Returns 1 if it was ours. A user who may not
/// publish can still release it.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(concat!(
        holds!(),
        "if not holds(KEYS[1], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1",
    ))
});

/// Keys: one that nobody uses. Writes and leaves nothing.
pub(super) static PROBE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "redis.call('SET', KEYS[1], '', 'PX', 1000)
redis.call('UNLINK', KEYS[1])
return 1",
    )
});

/// Keys: one that nobody uses. Arguments: channel, 1 with an index. Returns the commands that the
/// user may not run, in lower case, and `&` if it may not use the channel. The key is a text while
/// they are tried, so those for other types change nothing.
pub(super) static RIGHTS: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local lacking, key = {}, KEYS[1]
local function try(name, ...)
  local answer = redis.pcall(name, ...)
  local said = type(answer) == 'table' and answer.err or ''
  if string.find(said, 'channel', 1, true) then
    lacking[#lacking + 1] = '&'
  elseif string.find(said, 'no permissions', 1, true)
    or string.find(said, 'The user executing the script', 1, true) then
    lacking[#lacking + 1] = string.lower(name)
    return false
  end
  return true
end
local writes = try('SET', key, '', 'PX', 1000)
try('GET', key) try('STRLEN', key) try('GETRANGE', key, 0, 1) try('TYPE', key) try('PTTL', key)
try('EXISTS', key) try('PEXPIRE', key, 1000) try('HMGET', key, 'x') try('XLEN', key)
try('XRANGE', key, '-', '+', 'COUNT', 1) try('XREVRANGE', key, '+', '-', 'COUNT', 1)
try('XINFO', 'STREAM', key) try('XDEL', key, '1-1')
if writes then try('HSET', key, 'x', '') try('XADD', key, '*', 'x', '') end
if ARGV[2] == '1' then
  try('TIME') try('HGET', key, 'x') try('HDEL', key, 'x') try('HLEN', key) try('HSCAN', key, 0)
  try('ZCARD', key) try('ZSCORE', key, 'x') try('ZREM', key, 'x')
  try('ZRANGEBYSCORE', key, 0, 1, 'LIMIT', 0, 1)
  if writes then try('ZADD', key, 1, 'x') end
end
try('DEL', key) try('UNLINK', key)
try('PUBLISH', ARGV[1], '')
return lacking",
    )
});
