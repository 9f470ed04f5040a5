//! The purge log in Redis: a stream, and a head that tells whether the stream is all there.
//!
//! The head holds `generation` (random), `counter` (the newest number) and `floor` (what
//! came up to it may be missing). Decision: the log counts as lost, and gets another
//! generation, when the head is gone, when somebody knows a higher number than the counter
//! (a failover lost writes, a server came back empty) or when the stream doesn't end with
//! the counter. The new one begins above every number known, so none is given out twice.
//! Decision: a purge that reaches nothing, which asks for a number alone, replaces one that is
//! the last of the stream: those who ask often push nobody's purges out.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use fred::interfaces::StreamsInterface;
use fred::types::Value;
use fred::types::scripts::Script;
use tokio::time::timeout;

use super::Redis;
use super::fault::unexpected;
use crate::cache::l2::store::{Log, Logged, Purge, StoreError};

/// Purges fetched at once; whoever is further behind is told so instead.
const STRETCH: usize = 20_000;
/// On top of what a caller waits for purges, before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

/// Keys: stream, head. Arguments: number known, generation for a new log, stretch,
/// and for an append: length to keep, selector, soft (0 or 1).
static LOG: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local stream, head, known = KEYS[1], KEYS[2], tonumber(ARGV[1])
local function text(n) return string.format('%.0f', n) end
local function number(id) return tonumber(string.match(id, '^%d+')) end
local was = redis.call('HMGET', head, 'generation', 'counter', 'floor')
local generation, counter, floor = was[1], tonumber(was[2] or 0), tonumber(was[3] or 0)
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local top = last and number(last[1]) or 0
if not generation or known > counter or (counter > floor and top ~= counter) then
  generation, counter = ARGV[2], math.max(counter, known, top)
  floor = counter
  redis.call('HSET', head, 'generation', generation, 'counter', text(counter), 'floor', text(floor))
  redis.call('DEL', stream)
  last = nil
end
if ARGV[4] then
  counter = counter + 1
  if ARGV[5] == 'route:' and last and last[2][2] == 'route:' then
    redis.call('XDEL', stream, last[1])
  end
  local length = redis.call('XLEN', stream)
  redis.call('XADD', stream, 'MAXLEN', '~', ARGV[4], text(counter) .. '-0', 'selector', ARGV[5], 'soft', ARGV[6])
  if redis.call('XLEN', stream) ~= length + 1 then
    floor = number(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]) - 1
  end
  redis.call('HSET', head, 'counter', text(counter), 'floor', text(floor))
end
local stretch = tonumber(ARGV[3])
local purges = redis.call('XRANGE', stream, text(known) .. '-1', '+', 'COUNT', stretch + 1)
local whole = known >= floor and 1 or 0
if #purges > stretch then
  whole, purges = 0, redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
end
return {generation, text(counter), whole, purges}",
    )
});

impl Redis {
    pub(super) async fn append_purge(&self, purge: &Purge, last: u64) -> Result<Log, StoreError> {
        let soft = if purge.soft { "1" } else { "0" };
        self.log(
            last,
            &[
                self.purge_log_length.to_string(),
                purge.selector.clone(),
                soft.to_owned(),
            ],
        )
        .await
    }

    pub(super) async fn read_purges(&self, after: u64) -> Result<Log, StoreError> {
        self.log(after, &[]).await
    }

    pub(super) async fn watch_purges(
        &self,
        after: u64,
        patience: Duration,
    ) -> Result<Log, StoreError> {
        let client = self.waiting.client()?;
        // 0 would mean for ever.
        let block = u64::try_from(patience.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let (stream, id) = (self.names.log(), format!("{after}-0"));
        let news = client.xread::<Value, _, _>(Some(1), Some(block), stream, id);
        match timeout(patience.saturating_add(GRACE), news).await {
            Ok(Ok(_)) => self.read_purges(after).await,
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => {
                self.waiting.reset();
                Err(StoreError::Timeout)
            }
        }
    }

    async fn log(&self, known: u64, append: &[String]) -> Result<Log, StoreError> {
        let generation = RandomState::new().hash_one(known);
        let mut arguments: Vec<Value> = vec![
            known.to_string().into(),
            generation.to_string().into(),
            STRETCH.to_string().into(),
        ];
        arguments.extend(append.iter().map(|text| Value::from(text.as_str())));
        let keys = vec![self.names.log(), self.names.log_head()];
        let answer = self.run(&LOG, keys, arguments).await?;
        log(answer).ok_or_else(|| unexpected("the purge log's script"))
    }
}

fn log(answer: Value) -> Option<Log> {
    let [generation, newest, whole, purges] = parts(answer)?;
    let purges = match purges {
        Value::Array(purges) => purges,
        Value::Null => Vec::new(),
        _ => return None,
    };
    Some(Log {
        generation: number(&generation)?,
        newest: number(&newest)?,
        whole: whole.as_i64()? == 1,
        purges: purges.into_iter().map(logged).collect::<Option<_>>()?,
    })
}

/// `[id, [selector, …, soft, …]]`, as our script added it.
fn logged(entry: Value) -> Option<Logged> {
    let [id, fields] = parts(entry)?;
    let [_, selector, _, soft] = parts(fields)?;
    let id = text(&id)?;
    let number = id.split_once('-')?.0.parse().ok()?;
    Some(Logged {
        number,
        purge: Purge {
            selector: text(&selector)?,
            soft: text(&soft)? == "1",
        },
    })
}

fn parts<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(values) => values.try_into().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    let bytes = value.as_bytes()?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
