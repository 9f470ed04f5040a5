//! A gateway over a real Redis whose records are not what it wrote: each is a miss that a
//! metric names, the client gets the origin's answer, and the next write puts it right.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::wait::{SOON, within};

use crate::l2::{ask, over, redis_at, written};

/// L1 lets go at once, so that an answer comes from below or from the origin.
pub const BELOW: &str = "{mode: override, ttl: 1d, l1: {ttl: 1ms}}";

/// What is done to a record, and the series that tells.
struct RecordDamage {
    name: &'static str,
    harm: RecordChange,
    tells: (&'static str, &'static [(&'static str, &'static str)]),
}

enum RecordChange {
    /// The bytes `v` become what this makes of them; they live on as long.
    Change(&'static str),
    /// The record under this name (`KEYS[1]`).
    Run(&'static str),
    /// A quarter of a gigabyte of zeros, in a megabyte of gzip.
    Bomb,
}

use RecordChange::{Bomb, Change, Run};

macro_rules! corrupt {
    ($reason:literal) => {
        ("lamina_l2_records_corrupt_total", &[("reason", $reason)])
    };
}

macro_rules! answered {
    ($outcome:literal) => {
        (
            "lamina_l2_calls_total",
            &[("operation", "get"), ("outcome", $outcome)],
        )
    };
}

const DAMAGES: &[RecordDamage] = &[
    damage(
        "truncated",
        Change("v:sub(1, #v / 2)"),
        corrupt!("truncated"),
    ),
    damage(
        "a-flipped-bit",
        Change("v:sub(1, -5) .. string.char(bit.bxor(v:byte(-4), 1)) .. v:sub(-3)"),
        corrupt!("seal"),
    ),
    damage(
        "of-another-key",
        Change("redis.call('GET', ARGV[1])"),
        corrupt!("another_key"),
    ),
    // After the tag and the head of an array.
    damage(
        "of-a-newer-version",
        Change("v:sub(1, 5) .. string.char(3) .. v:sub(7)"),
        corrupt!("version"),
    ),
    damage(
        "of-the-version-before",
        Change("v:sub(1, 5) .. string.char(1) .. v:sub(7)"),
        corrupt!("version"),
    ),
    damage(
        "of-an-unknown-tag",
        Change("'HC9X' .. v:sub(5)"),
        corrupt!("tag"),
    ),
    damage("a-bomb", Bomb, corrupt!("too_large")),
    damage(
        "of-100-MB",
        Run("redis.call('SETRANGE', KEYS[1], 100 * 1024 * 1024, 'x')"),
        answered!("too-large"),
    ),
    damage(
        "of-another-type",
        Run(
            "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x') redis.call('EXPIRE', KEYS[1], 60)",
        ),
        answered!("foreign"),
    ),
    damage(
        "without-an-end-of-life",
        Run("redis.call('PERSIST', KEYS[1])"),
        answered!("foreign"),
    ),
];

const fn damage(
    name: &'static str,
    harm: RecordChange,
    tells: (&'static str, &'static [(&'static str, &'static str)]),
) -> RecordDamage {
    RecordDamage { name, harm, tells }
}

#[tokio::test]
async fn a_damaged_record_is_a_miss_that_is_named_and_put_right() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let node = over(&origin, &redis_at(&redis.url()), BELOW).await;
    let mut known = HashSet::new();
    let other = stored(&node, &redis, &mut known, "/other").await;
    for damage in DAMAGES {
        let path = format!("/{}", damage.name);
        let record = stored(&node, &redis, &mut known, &path).await;
        damage.harm.strike(&redis, &record, &other).await;
        let (name, labels) = damage.tells;
        let told = node.metric(name, labels).await;
        let found = [("tier", "l2"), ("result", "hit")];
        let hits = node.metric("lamina_cache_lookups_total", &found).await;
        let writes = written_so_far(&node).await;
        let answer = within("a page", SOON, ask(&node, &path)).await;
        let seen = (answer.status.as_u16(), answer.text(), answer.is_hit());
        assert_eq!(seen, (200, &*format!("{path} 2"), false), "{path}");
        assert!(
            node.metric(name, labels).await > told,
            "{path}: {name}{labels:?}"
        );
        written(&node, writes + 1.0).await;
        let healed = ask(&node, &path).await;
        assert_eq!(
            (healed.text(), healed.is_hit()),
            (&*format!("{path} 2"), true)
        );
        let now = node.metric("lamina_cache_lookups_total", &found).await;
        assert!(now > hits, "{path}: from below");
        assert_eq!(origin.count_of(&path), 2, "{path}");
    }
}

/// An origin whose answers are their path and how often it was asked for.
pub async fn numbered() -> Origin {
    let asked = std::sync::Mutex::new(std::collections::HashMap::<String, u32>::new());
    Origin::pages(move |seen| {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(seen.path.clone()).or_default();
        *count += 1;
        Reply::ok(format!("{} {count}", seen.path))
    })
    .await
}

/// Has a page loaded and stored; the name of its record.
async fn stored(node: &Gateway, redis: &Redis, known: &mut HashSet<String>, path: &str) -> String {
    let writes = written_so_far(node).await;
    assert_eq!(ask(node, path).await.text(), format!("{path} 1"));
    written(node, writes + 1.0).await;
    let records = redis.cli(&["--scan", "--pattern", "lamina:*r"]).await;
    let new = records
        .lines()
        .find(|name| known.insert((*name).to_owned()));
    new.expect("a record was written").to_owned()
}

async fn written_so_far(node: &Gateway) -> f64 {
    let labels = [("outcome", "stored")];
    node.metric("lamina_l2_writes_total", &labels).await
}

impl RecordChange {
    async fn strike(&self, redis: &Redis, record: &str, other: &str) {
        let script = match self {
            Change(change) => format!(
                "local v = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], {change}, 'KEEPTTL') return 1"
            ),
            Run(script) => format!("{script} return 1"),
            Bomb => {
                let said = redis
                    .cli_with(&["-x", "PSETEX", record, "60000"], &bomb())
                    .await;
                return assert_eq!(said, "OK");
            }
        };
        let said = redis.cli(&["EVAL", &script, "1", record, other]).await;
        assert_eq!(said, "1", "{script}");
    }
}

/// By `gzip`, which every system has.
fn bomb() -> Vec<u8> {
    let ran = Command::new("sh")
        .args(["-c", "head -c 256M /dev/zero | gzip -1"])
        .stderr(Stdio::inherit())
        .output()
        .expect("there is a shell");
    assert!(ran.status.success() && ran.stdout.len() < 8 << 20);
    [b"HC1G", &*ran.stdout].concat()
}
