//! Somebody who can write into Redis forges the purge log: its numbers, its form, its purges.
//! Nothing that was purged is shown, and when the attack is over the cache works as before.

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::wait::{SOON, wait_for};
use serde_json::json;

use crate::l2::{ask, over, redis_at};
use crate::l2_forged_record::{eval, gaps, sealed_at};
use crate::l2_gateway_damage::{BELOW, numbered};

const KEYS: [&str; 2] = ["lamina:{log}", "lamina:{log}h"];

/// Forged logs, and why each is not believed.
const FORGED: &[(&str, &str, &str)] = &[
    ("2^35 in head and stream", "number('34359738368')", "numbers"),
    ("2^36", "number('68719476736')", "numbers"),
    ("2^53 + 1", "number('9007199254740993')", "numbers"),
    ("2^63", "number('9223372036854775808')", "numbers"),
    ("2^64 - 2", "number('18446744073709551614')", "numbers"),
    ("the last that an order holds", "number('34359738366')", "missing"),
    ("a jump", "number('10000000000')", "missing"),
    ("a jump of two", "number(string.format('%.0f', newest + 2))", "missing"),
    ("a counter below 0", "redis.call('HSET', head, 'counter', '-5')", "numbers"),
    ("a counter that is a word", "redis.call('HSET', head, 'counter', 'many')", "numbers"),
    ("a counter that is a float", "redis.call('HSET', head, 'counter', '1e300')", "numbers"),
    ("a counter of a megabyte", "redis.call('HSET', head, 'counter', ('9'):rep(1000000))", "numbers"),
    ("a floor above the counter", "redis.call('HSET', head, 'floor', newest + 1)", "numbers"),
    ("a generation of no number", "redis.call('HSET', head, 'generation', 'nan')", "numbers"),
    (
        "an id from the far future",
        "redis.call('XADD', log, '18446744073709551615-1', 'selector', 'tag:x', 'soft', '0')",
        "numbers",
    ),
    (
        "the last id there is, and gone",
        "redis.call('XADD', log, '18446744073709551615-18446744073709551615', 'selector', 'all', 'soft', '0')
redis.call('XDEL', log, '18446744073709551615-18446744073709551615')",
        "numbers",
    ),
    (
        "a second purge of a number",
        "redis.call('XADD', log, string.format('%.0f-1', newest), 'selector', 'tag:x', 'soft', '0')",
        "numbers",
    ),
    ("a stream of another type", "redis.call('DEL', log) redis.call('SET', log, 'x')", "foreign"),
    ("a head of another type", "redis.call('DEL', head) redis.call('SET', head, 'x')", "foreign"),
];

const PRELUDE: &str = "local log, head = KEYS[1], KEYS[2]
local newest = tonumber(redis.call('HGET', head, 'counter'))
local function number(n)
  redis.call('XADD', log, n .. '-0', 'selector', 'tag:x', 'soft', '0')
  redis.call('HSET', head, 'counter', n)
end
";

#[tokio::test]
async fn numbers_beyond_what_is_believable_are_a_lost_log_and_no_overflow() {
    let redis = Redis::start().await;
    forged(&redis, &redis_at(&redis.url()), |reason| vec![reason]).await;
}

#[tokio::test]
async fn numbers_beyond_what_is_believable_do_nothing_more_where_the_log_is_sealed() {
    let redis = Redis::start().await;
    forged(&redis, &sealed_at(&redis), |reason| {
        vec![reason, "unsealed"]
    })
    .await;
}

/// Each forged log in turn, over the same two nodes.
async fn forged(redis: &Redis, l2: &str, reasons: impl Fn(&'static str) -> Vec<&'static str>) {
    let origin = numbered().await;
    let l2 = &briefly_leased(l2);
    let one = over(&origin, l2, BELOW).await;
    let other = over(&origin, l2, BELOW).await;
    for tag in ["x", "y", "z"] {
        one.purge(json!({"tag": tag})).await;
    }
    for (n, (name, forge, reason)) in FORGED.iter().enumerate() {
        let path = format!("/{n}");
        let first = ask(&one, &path).await.text().to_owned();
        wait_for("the page is shared", SOON * 3, || async {
            (ask(&other, &path).await.text() == first).then_some(())
        })
        .await;
        let reasons = reasons(reason);
        let was = (
            told(&one, &other, &reasons).await,
            gaps_of(&one).await,
            gaps_of(&other).await,
        );
        eval(redis, &format!("{PRELUDE}{forge}"), &KEYS).await;
        // So that nobody waits for the next look.
        let receipt = one.purge(json!({"tag": "awake"})).await;
        assert_eq!(receipt["l2"]["logged"], true, "{name}: {receipt}");
        gaps(&one, was.1 + 1.0).await;
        gaps(&other, was.2 + 1.0).await;
        for node in [&one, &other] {
            assert_ne!(ask(node, &path).await.text(), first, "{name}: in doubt");
        }
        assert!(
            told(&one, &other, &reasons).await > was.0,
            "{name}: {reason}"
        );
        works(&one, &other, &origin, &format!("{path}/works")).await;
    }
    one.logged("why the log is not believed", |line| {
        line.contains("purge log is not trusted")
    })
    .await;
}

/// A lease that is not given back, since its log was forged meanwhile, ends soon.
fn briefly_leased(l2: &str) -> String {
    l2.replace("lease: {ttl: 5m", "lease: {ttl: 2s")
}

async fn gaps_of(node: &Gateway) -> f64 {
    node.metric("lamina_l2_purge_log_gaps_total", &[]).await
}

/// How often one of the nodes told one of these reasons.
async fn told(one: &Gateway, other: &Gateway, reasons: &[&str]) -> f64 {
    let mut sum = 0.0;
    for node in [one, other] {
        for reason in reasons {
            let labels = [("reason", *reason)];
            let name = "lamina_l2_purge_log_faults_total";
            sum += node.metric(name, &labels).await;
        }
    }
    sum
}

/// Records are shared, purges of each node get their number and reach the other one.
async fn works(one: &Gateway, other: &Gateway, origin: &Origin, name: &str) {
    for (n, (purging, hearing)) in [(one, other), (other, one)].into_iter().enumerate() {
        let path = format!("{name}/{n}");
        let url = json!({"url": format!("http://site.example{path}")});
        wait_for("a page is shared", SOON * 3, || async {
            let loaded = ask(purging, &path).await;
            let found = ask(hearing, &path).await;
            (found.is_hit() && found.text() == loaded.text()).then_some(())
        })
        .await;
        let shared = ask(hearing, &path).await.text().to_owned();
        let receipt = purging.purge(url).await;
        assert_eq!(receipt["l2"]["logged"], true, "{name}: {receipt}");
        wait_for("the purge is heard", SOON, || async {
            (ask(hearing, &path).await.text() != shared).then_some(())
        })
        .await;
        assert_ne!(ask(purging, &path).await.text(), shared, "{name}");
        assert!(origin.count_of(&path) >= 2);
    }
}

/// As long as somebody does it again and again nothing old is shown; then all is as before.
#[tokio::test]
async fn a_log_that_is_forged_again_and_again_works_when_that_ends() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, BELOW).await;
    let other = over(&origin, &l2, BELOW).await;
    one.purge(json!({"tag": "x"})).await;
    for round in 0..60_u64 {
        // Each leap is one that a number could make.
        let forge = match round % 3 {
            0 => "number(string.format('%.0f', math.min(newest + 500000000, 34359738366)))",
            1 => "number('34359738368')",
            _ => "redis.call('DEL', log, head)",
        };
        eval(&redis, &format!("{PRELUDE}{forge}"), &KEYS).await;
        one.purge(json!({"url": "http://site.example/a"})).await;
        let answer = ask(&one, "/a").await;
        assert!(!answer.is_hit(), "{round}");
    }
    works(&one, &other, &origin, "/again").await;
}

/// Which of two tags is purged by the purges that an attacker changes, and how.
const CHANGED: &[(&str, &str)] = &[
    (
        "a purge of something else in its place",
        "entries[#entries][2][2] = 'tag:else'",
    ),
    ("a soft one in its place", "entries[#entries][2][4] = '1'"),
    (
        "an earlier purge in its place",
        "entries[#entries][2] = entries[1][2]",
    ),
    (
        "none in its place, and one after it",
        "table.remove(entries, #entries - 1)",
    ),
];

#[tokio::test]
async fn a_purge_that_is_changed_on_its_way_still_hides_what_it_was_about() {
    for (name, change) in CHANGED {
        let redis = Redis::start().await;
        let origin = numbered().await;
        let policy = "{mode: override, ttl: 1d}";
        let one = over(&origin, &sealed_at(&redis), policy).await;
        let other = over(&origin, &sealed_at(&redis), policy).await;
        one.purge(json!({"tag": "before"})).await;
        assert_eq!(ask(&other, "/a").await.text(), "/a 1");
        other
            .metric_until("lamina_l2_purge_log_number", &[], |n| n >= 1.0)
            .await;
        other.freeze();
        let url = json!({"url": "http://site.example/a"});
        one.purge(url.clone()).await;
        if name.contains("after it") {
            one.purge(json!({"tag": "after"})).await;
        }
        let script = format!(
            "local entries = redis.call('XRANGE', KEYS[1], '-', '+')
{change}
redis.call('DEL', KEYS[1])
for _, entry in ipairs(entries) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end"
        );
        eval(&redis, &script, &KEYS).await;
        other.thaw();
        wait_for(name, SOON, || async {
            (ask(&other, "/a").await.text() != "/a 1").then_some(())
        })
        .await;
        // The one that appended it may have found out first, and begun a new log.
        assert!(
            told(&other, &other, &["unsealed", "missing", "lost"]).await > 0.0,
            "{name}"
        );
        works(&one, &other, &origin, "/works").await;
    }
}

/// A page that nobody purged is not lost by what others append, as long as they know the
/// secret; who doesn't can only empty.
#[tokio::test]
async fn a_purge_without_the_secret_hides_everything_once_and_is_told() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let policy = "{mode: override, ttl: 1d}";
    let node = over(&origin, &sealed_at(&redis), policy).await;
    node.purge(json!({"tag": "x"})).await;
    assert_eq!(ask(&node, "/a").await.text(), "/a 1");
    let forge = "local n = tonumber(redis.call('HGET', head, 'counter')) + 1
number(string.format('%.0f', n))";
    eval(&redis, &format!("{PRELUDE}{forge}"), &KEYS).await;
    wait_for("it is told", SOON, || async {
        (told(&node, &node, &["unsealed"]).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(ask(&node, "/a").await.text(), "/a 2");
    assert!(ask(&node, "/a").await.is_hit());
    node.logged("that a purge is not believed", |line| {
        line.contains("does not have the form or the seal")
    })
    .await;
}
