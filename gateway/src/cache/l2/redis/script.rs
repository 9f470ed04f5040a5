//! What must happen at once, as scripts: Redis runs each without interruption.
//!
//! Decision: sent by hash, and whole where the server doesn't know it (after a restart, a
//! failover, `SCRIPT FLUSH`). Orders are compared as texts of 20 digits, since Lua's
//! numbers lose the low bits of a u64. A script reads all that could refuse it before its
//! first write, and Redis denies its memory at the first write or not at all, so none is
//! left half done.

use std::sync::LazyLock;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::types::Value;
use fred::types::scripts::Script;

use super::fault::is_unknown_script;

/// Keys: record. Arguments: limit. Nothing, {bytes} when too long, {bytes, ms left, record}.
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local n = redis.call('STRLEN', KEYS[1])
if n == 0 then return false end
if n > tonumber(ARGV[1]) then return {n} end
return {n, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1])}",
    )
});

/// Keys: record, born, tombstone, lease. Arguments: record, life in ms, born, token or nothing.
/// 1: stored, 0: overtaken, -1: the lease is not ours.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if ARGV[4] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[4] then return -1 end
local tomb = redis.call('GET', KEYS[3])
if tomb and tomb > ARGV[3] then return 0 end
local born = redis.call('GET', KEYS[2])
if born and born > ARGV[3] and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1",
    )
});

/// Keys: note of invalidations. Arguments: ms. The newest invalidation. Where there is no note
/// one is begun, if Redis has room for it: it is wanted once something is loaded.
pub(super) static READ_NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local at = redis.call('GET', KEYS[1])
if at then return at end
redis.pcall('SET', KEYS[1], '0', 'PX', ARGV[1])
return '0'",
    )
});

/// Keys: note of invalidations. Arguments: ms. Has the note live so long at least.
pub(super) static KEEP_NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local left = redis.call('PTTL', KEYS[1])
if left == -2 then
  redis.call('SET', KEYS[1], '0', 'PX', ARGV[1])
elseif left < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1",
    )
});

/// Keys: note of invalidations. Arguments: order, ms. 1: there was a note.
pub(super) static INVALIDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local at = redis.call('GET', KEYS[1])
if not at then return 0 end
if at < ARGV[1] then at = ARGV[1] end
local left = math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]))
redis.call('SET', KEYS[1], at, 'PX', string.format('%.0f', left))
return 1",
    )
});

/// Keys: record, born, tombstone. Arguments: order, life of the tombstone in ms.
/// A record of a load after the order stays: a delete that is tried again must not reach it.
pub(super) static DELETE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local born = redis.call('GET', KEYS[2])
local tomb = redis.call('GET', KEYS[3])
if not tomb or tomb < ARGV[1] then tomb = ARGV[1] end
if not born or born <= ARGV[1] then redis.call('UNLINK', KEYS[1], KEYS[2]) end
redis.call('SET', KEYS[3], tomb, 'PX', ARGV[2])
return 1",
    )
});

/// Keys: lease. Arguments: token, ms. 1: prolonged.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Keys: lease. Arguments: token, channel, key. 1: it was ours. Who may not publish may
/// give back nevertheless.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1",
    )
});

/// Runs a script.
pub(super) async fn run(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    arguments: Vec<Value>,
) -> Result<Value, Error> {
    let known = client
        .evalsha(script.sha1().clone(), keys.clone(), arguments.clone())
        .await;
    match (known, script.lua()) {
        (Err(error), Some(text)) if is_unknown_script(&error) => {
            client.eval(text.clone(), keys, arguments).await
        }
        (answer, _) => answer,
    }
}
