//! The index in Redis: each shard is a sorted set of store keys by their expiry, with a hash of
//! their births and URLs beside it.
//!
//! Decision: times are the server's own (`TIME` in the script), so no node's clock decides when a
//! member has expired, and a score only grows: if two writes are noted in the reverse order, the
//! longer life and the later birth stay. So no live record is dropped. A record whose life became
//! shorter is a member for too long, and a listing finds that out. URLs are in a hash and not in
//! the members, because a key is loaded by many URLs (dropped parameters), and each would be a
//! further member. Expired members are removed with what is noted, some at a time; a shard in which
//! nothing is noted expires with its last record. Nothing is read by pattern, so Redis's globs
//! never see a URL or the prefix.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use lamina_base::redis::driver::KeysInterface;
use lamina_base::redis::driver::Script;
use lamina_base::redis::driver::Value;

use super::RedisStore;
use super::fault::unexpected;
use super::values::{done, millis, order, stamp};
use crate::l2::store::{
    IndexMember, IndexNote, IndexPage, IndexedUrl, LogOrder, LogPlace, StoreError, StoreKey,
};

/// The largest number of expired members that are removed with one batch: more than a batch adds.
const TRIM: usize = 256;
/// The number of digits of a birth, before the rest of a text.
const BIRTH: usize = 20;

/// Keys: index, texts. Arguments: number of members to trim, then for each record: member, life in
/// ms, text. Texts of an index that was evicted would never be trimmed, so they are removed first.
static NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local index, texts = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known, told = redis.call('ZCARD', index), redis.call('HLEN', texts)
local longest = 0
for i = 2, #ARGV, 3 do
  local ends = now + tonumber(ARGV[i + 1])
  local was = redis.call('ZSCORE', index, ARGV[i])
  if not was or tonumber(was) < ends then
    redis.call('ZADD', index, string.format('%.0f', ends), ARGV[i])
  end
  longest = math.max(longest, tonumber(ARGV[i + 1]))
end
if known == 0 and told > 0 then redis.call('UNLINK', texts) end
for i = 2, #ARGV, 3 do
  local was = redis.call('HGET', texts, ARGV[i])
  if not was or string.sub(was, 1, 20) <= string.sub(ARGV[i + 2], 1, 20) then
    redis.call('HSET', texts, ARGV[i], ARGV[i + 2])
  end
end
local gone = redis.call('ZRANGEBYSCORE', index, '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
if #gone > 0 then
  redis.call('ZREM', index, unpack(gone))
  redis.call('HDEL', texts, unpack(gone))
end
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < longest then redis.call('PEXPIRE', key, longest) end
end
return 1",
    )
});

/// Keys: texts. Arguments: place, size.
static PAGE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua("return redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])")
});

/// Keys: record, born. Arguments: stamp. Returns 2: removed, 1: it did not exist, 0: it stays,
/// because it is of a later load or its birth is unknown. A record of another generation of the
/// purge log is removed, because no node shows it.
static CLEAR: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if redis.call('TYPE', KEYS[2]).ok ~= 'string' then return 0 end
local born = redis.call('GETRANGE', KEYS[2], 0, 35)
if string.sub(born, 1, 16) == string.sub(ARGV[1], 1, 16) and born >= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2])
return 2",
    )
});

/// Keys: index, texts. Arguments: order, then members. A member that was noted for a later load
/// stays, even if that was written after its older record was found to be gone.
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "for i = 2, #ARGV do
  local was = redis.call('HGET', KEYS[2], ARGV[i])
  if not was or string.sub(was, 1, 20) < ARGV[1] then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return 1",
    )
});

impl RedisStore {
    pub(super) async fn note_records(
        &self,
        shard: u16,
        records: &[IndexNote],
    ) -> Result<(), StoreError> {
        let mut arguments = vec![Value::from(TRIM.to_string())];
        for noted in records {
            arguments.push(member(&noted.key));
            arguments.push(millis(noted.life).into());
            arguments.push(text(noted).into());
        }
        let answer = self.run(&NOTE, self.names_of(shard), arguments).await?;
        done(&answer, "ZADD").map(drop)
    }

    pub(super) async fn read_page(
        &self,
        shard: u16,
        from: u64,
        size: usize,
    ) -> Result<IndexPage, StoreError> {
        let keys = vec![self.names.index_texts(shard)];
        let arguments = vec![from.to_string().into(), size.to_string().into()];
        let answer = self.run(&PAGE, keys, arguments).await?;
        self.page_of(answer).ok_or_else(|| unexpected("HSCAN"))
    }

    pub(super) async fn lives(
        &self,
        keys: &[StoreKey],
    ) -> Result<Vec<Option<Duration>>, StoreError> {
        let client = self.client()?;
        let asked = keys.iter().map(|key| {
            let (client, name) = (&client, self.names.record(key));
            async move { client.pttl::<i64, _>(name).await }
        });
        let lives = try_join_all(asked).await;
        let lives = lives.map_err(|error| self.failed(&error))?;
        // -2: it does not exist; -1: it never expires, so it is not ours.
        let left = |ms| u64::try_from(ms).ok().map(Duration::from_millis);
        Ok(lives.into_iter().map(left).collect())
    }

    pub(super) async fn clear_records(
        &self,
        shard: u16,
        keys: &[StoreKey],
        before: LogPlace,
    ) -> Result<usize, StoreError> {
        if self.has_ended(before) {
            return Ok(0);
        }
        let asked = keys.iter().map(|key| {
            let names = vec![self.names.record(key), self.names.born(key)];
            self.run(&CLEAR, names, vec![stamp(before).into()])
        });
        let mut removed = 0;
        let mut failed = None;
        let mut arguments = vec![order(before.order)];
        for (key, answer) in keys.iter().zip(join_all(asked).await) {
            match answer.map(|answer| answer.as_i64()) {
                Ok(Some(0)) => {}
                Ok(Some(gone @ (1 | 2))) => {
                    removed += usize::from(gone == 2);
                    arguments.push(member(key));
                }
                Ok(_) => failed = Some(unexpected("UNLINK")),
                Err(error) => failed = Some(error),
            }
        }
        if arguments.len() > 1 {
            let answer = self.run(&FORGET, self.names_of(shard), arguments).await?;
            done(&answer, "ZREM")?;
        }
        failed.map_or(Ok(removed), Err)
    }

    fn names_of(&self, shard: u16) -> Vec<String> {
        vec![self.names.index(shard), self.names.index_texts(shard)]
    }

    /// Reads `[place, [member, text, …]]`. Members that are not ours are left out.
    fn page_of(&self, answer: Value) -> Option<IndexPage> {
        let Value::Array(parts) = answer else {
            return None;
        };
        let [next, Value::Array(pairs)] = <[Value; 2]>::try_from(parts).ok()? else {
            return None;
        };
        let members = pairs.as_chunks().0.iter();
        Some(IndexPage {
            members: members.filter_map(|pair| self.member_of(pair)).collect(),
            next: std::str::from_utf8(next.as_bytes()?).ok()?.parse().ok()?,
        })
    }

    fn member_of(&self, [member, text]: &[Value; 2]) -> Option<IndexMember> {
        let key = StoreKey::from_bytes(member.as_bytes()?.try_into().ok()?);
        let text = std::str::from_utf8(text.as_bytes()?).ok()?;
        let (born, rest) = text.split_at_checked(BIRTH)?;
        let (mark, url) = rest.split_at_checked(1)?;
        Some(IndexMember {
            born: LogOrder::new(born.parse().ok()?),
            text: IndexedUrl {
                url: url.into(),
                is_cut: mark == "~",
            },
            name: self.names.record(&key),
            key,
        })
    }
}

fn member(key: &StoreKey) -> Value {
    key.to_bytes().as_slice().into()
}

/// The birth in a form that can be compared, a mark that tells whether the URL was cut, and the
/// URL.
fn text(noted: &IndexNote) -> String {
    let mark = if noted.text.is_cut { '~' } else { '=' };
    format!("{:020}{mark}{}", noted.born, noted.text.url)
}
