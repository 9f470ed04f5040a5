//! Somebody who can write into Redis puts back what was there: no record is young again, none
//! comes back after a purge, and none is another key's. Nobody is kept from writing later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::wait::{SOON, passed, wait_for};
use serde_json::json;

use crate::l2::{PATIENCE, ask, over, written};
use crate::l2_gateway_damage::{BELOW, numbered};

/// A Redis whose records, purges and leases are sealed.
pub fn sealed_at(redis: &Redis) -> String {
    let url = redis.url();
    format!(
        "{{redis: {{url: \"{url}\", connect_timeout: 1m, silence_timeout: 10m}}, seal_key: a-secret-of-many-bytes, {PATIENCE}}}"
    )
}

/// The names of all records.
pub async fn records(redis: &Redis) -> Vec<String> {
    let names = redis.cli(&["--scan", "--pattern", "lamina:*r"]).await;
    names.lines().map(str::to_owned).collect()
}

/// Runs a script of the attacker's.
pub async fn eval(redis: &Redis, script: &str, keys: &[&str]) {
    let count = keys.len().to_string();
    let script = format!("{script} return 'done'");
    let arguments = [&["EVAL", script.as_str(), count.as_str()], keys].concat();
    assert_eq!(redis.cli(&arguments).await, "done", "{script}");
}

/// What an attacker does to a record that lies in `KEYS[1]`, and was saved in `KEYS[2]` when
/// it was young.
const PROLONGED: &[(&str, &str)] = &[
    (
        "put back with the life it had",
        "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 2000)",
    ),
    (
        "put back for a year",
        "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 31536000000)",
    ),
    (
        "put back with all that belongs to it",
        "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 600000)
redis.call('DEL', KEYS[1]:sub(1, -2) .. 'b', KEYS[1]:sub(1, -2) .. 't')",
    ),
];

#[tokio::test]
async fn an_old_record_that_is_put_back_is_never_fresh_beyond_its_own_life() {
    for (name, attack) in PROLONGED {
        let redis = Redis::start().await;
        let origin = numbered().await;
        let policy = "{mode: override, ttl: 2s, l1: {ttl: 1ms}}";
        let one = over(&origin, &sealed_at(&redis), policy).await;
        let other = over(&origin, &sealed_at(&redis), policy).await;
        let loaded = ask(&one, "/a").await;
        written(&one, 1.0).await;
        let record = records(&redis).await.remove(0);
        let keys = [record.as_str(), "saved"];
        eval(&redis, "redis.call('COPY', KEYS[1], KEYS[2])", &keys).await;
        redis.cli(&["PERSIST", "saved"]).await;
        passed(loaded.at, Duration::from_millis(2_050)).await;
        for node in [&one, &other, &one] {
            eval(&redis, attack, &keys).await;
            let answer = ask(node, "/a").await;
            assert_ne!(answer.text(), "/a 1", "{name}");
        }
        let ended = [("reason", "ended")];
        let told = one.metric("lamina_l2_records_corrupt_total", &ended).await;
        assert!(told > 0.0, "{name}");
    }
}

#[tokio::test]
async fn a_record_whose_time_in_the_store_is_prolonged_ends_with_its_own_life() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let policy = "{mode: override, ttl: 2s, l1: {ttl: 1ms}}";
    let node = over(&origin, &sealed_at(&redis), policy).await;
    let loaded = ask(&node, "/a").await;
    written(&node, 1.0).await;
    let record = records(&redis).await.remove(0);
    redis.cli(&["PEXPIRE", &record, "600000"]).await;
    passed(loaded.at, Duration::from_millis(2_050)).await;
    assert_eq!(ask(&node, "/a").await.text(), "/a 2");
}

/// As `Age` tells, which a client counts with.
#[tokio::test]
async fn the_age_of_a_record_that_is_put_back_does_not_begin_anew() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let node = over(&origin, &sealed_at(&redis), BELOW).await;
    let loaded = ask(&node, "/a").await;
    written(&node, 1.0).await;
    let record = records(&redis).await.remove(0);
    passed(loaded.at, Duration::from_millis(2_100)).await;
    redis.cli(&["PEXPIRE", &record, "86400000"]).await;
    let answer = ask(&node, "/a").await;
    assert!(answer.is_hit() && answer.age() >= Some(2), "{answer:?}");
}

/// A stale window is over when it is over, too.
#[tokio::test]
async fn a_stale_window_of_a_record_that_is_put_back_is_not_opened_again() {
    let redis = Redis::start().await;
    let count = AtomicUsize::new(0);
    let origin = Origin::pages(move |_| {
        let version = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::ok(format!("v{version}"))
            .header("cache-control", "max-age=1, stale-while-revalidate=1")
    })
    .await;
    let node = over(&origin, &sealed_at(&redis), "{}").await;
    let cold = over(&origin, &sealed_at(&redis), "{}").await;
    let loaded = ask(&node, "/a").await;
    written(&node, 1.0).await;
    let record = records(&redis).await.remove(0);
    redis.cli(&["PEXPIRE", &record, "600000"]).await;
    passed(loaded.at, Duration::from_millis(2_050)).await;
    assert_eq!(ask(&cold, "/a").await.text(), "v2");
}

#[tokio::test]
async fn a_record_that_is_put_back_after_a_purge_is_shown_by_no_node() {
    for selector in [
        json!({"url": "http://site.example/a"}),
        json!({"prefix": "/"}),
        json!({"route": "site"}),
        json!({"all": true}),
    ] {
        let redis = Redis::start().await;
        let origin = numbered().await;
        let one = over(&origin, &sealed_at(&redis), BELOW).await;
        let other = over(&origin, &sealed_at(&redis), BELOW).await;
        assert_eq!(ask(&one, "/a").await.text(), "/a 1");
        written(&one, 1.0).await;
        let record = records(&redis).await.remove(0);
        let keys = [record.as_str(), "saved"];
        eval(&redis, "redis.call('COPY', KEYS[1], KEYS[2])", &keys).await;
        one.purge(selector.clone()).await;
        let number = one.metric("lamina_l2_purge_log_number", &[]).await;
        let name = "lamina_l2_purge_log_number";
        other.metric_until(name, &[], |n| n >= number).await;
        for node in [&other, &one, &other] {
            eval(&redis, PROLONGED[2].1, &keys).await;
            assert_ne!(ask(node, "/a").await.text(), "/a 1", "{selector}");
        }
    }
}

/// A log from before a purge is brought back, and with it the record of that time.
#[tokio::test]
async fn a_former_purge_log_that_is_brought_back_shows_nothing_that_was_purged() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let one = over(&origin, &sealed_at(&redis), BELOW).await;
    let other = over(&origin, &sealed_at(&redis), BELOW).await;
    one.purge(json!({"tag": "else"})).await;
    assert_eq!(ask(&one, "/a").await.text(), "/a 1");
    written(&one, 1.0).await;
    let record = records(&redis).await.remove(0);
    let keys = [record.as_str(), "saved", "lamina:{log}", "lamina:{log}h"];
    let save = "redis.call('COPY', KEYS[1], KEYS[2])
redis.call('COPY', KEYS[3], 'saved log') redis.call('COPY', KEYS[4], 'saved head')";
    eval(&redis, save, &keys).await;
    one.purge(json!({"url": "http://site.example/a"})).await;
    // Another generation, so that what nodes know of the former one is no measure.
    eval(&redis, "redis.call('DEL', KEYS[3], KEYS[4])", &keys).await;
    for node in [&one, &other] {
        gaps(node, 1.0).await;
    }
    let back = "redis.call('COPY', 'saved log', KEYS[3], 'REPLACE')
redis.call('COPY', 'saved head', KEYS[4], 'REPLACE')
redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 600000)";
    eval(&redis, back, &keys).await;
    for node in [&one, &other] {
        gaps(node, 2.0).await;
        eval(
            &redis,
            "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 600000)",
            &keys,
        )
        .await;
        let answer = ask(node, "/a").await;
        assert_ne!(answer.text(), "/a 1");
    }
    let former = [("reason", "rolled-back")];
    let name = "lamina_l2_purge_log_faults_total";
    let told = one.metric(name, &former).await + other.metric(name, &former).await;
    assert!(told > 0.0);
}

/// Waits until so many gaps in the purge log were noticed.
pub async fn gaps(node: &Gateway, count: f64) {
    let name = "lamina_l2_purge_log_gaps_total";
    node.metric_until(name, &[], |gaps| gaps >= count).await;
}

#[tokio::test]
async fn records_that_are_swapped_are_shown_under_neither_key() {
    let redis = Redis::start().await;
    let origin = Origin::pages(|seen| {
        Reply::fresh(format!(
            "{} in {}",
            seen.path,
            seen.header("accept-language")
        ))
        .header("vary", "accept-language")
    })
    .await;
    let node = over(&origin, &sealed_at(&redis), BELOW).await;
    let wanted = [("/a", "de"), ("/a", "fr"), ("/b", "de")];
    let asked = async |path: &str, language: &str| -> Answer {
        let request = node.client().request(path).host("site.example");
        request.header("accept-language", language).send().await
    };
    for (n, (path, language)) in wanted.into_iter().enumerate() {
        asked(path, language).await;
        written(&node, 2.0 * (n + 1) as f64).await;
    }
    // Each record takes the next one's place: lists of variants and variants alike.
    let names = records(&redis).await;
    assert_eq!(names.len(), 5, "{names:?}");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let turn = "local first = redis.call('GET', KEYS[1])
for i = 1, #KEYS - 1 do redis.call('SET', KEYS[i], redis.call('GET', KEYS[i + 1]), 'KEEPTTL') end
redis.call('SET', KEYS[#KEYS], first, 'KEEPTTL')";
    eval(&redis, turn, &names).await;
    for (path, language) in wanted {
        let answer = asked(path, language).await;
        assert_eq!(answer.text(), format!("{path} in {language}"));
    }
    let other = [("reason", "another_key")];
    let told = node.metric("lamina_l2_records_corrupt_total", &other).await;
    assert!(told > 0.0);
}

/// What keeps late writes out keeps all out, when it is forged; but for a while at most.
#[tokio::test]
async fn a_forged_birth_or_tombstone_keeps_no_later_load_out() {
    for (name, forge) in [
        (
            "a later birth for ten years",
            "redis.call('SET', b, redis.call('GET', b):sub(1, 16) .. ('9'):rep(20), 'PX', 315360000000)",
        ),
        ("a birth for ever", "redis.call('SET', b, ('z'):rep(36))"),
        (
            "a birth of another type",
            "redis.call('DEL', b) redis.call('RPUSH', b, 'x')",
        ),
        (
            "a later tombstone for ten years",
            "redis.call('SET', t, redis.call('GET', b):sub(1, 16) .. ('9'):rep(20), 'PX', 315360000000)",
        ),
        (
            "a tombstone for ever",
            "redis.call('SET', t, ('z'):rep(36))",
        ),
        (
            "a tombstone of another type",
            "redis.call('DEL', t) redis.call('RPUSH', t, 'x')",
        ),
    ] {
        let redis = Redis::start().await;
        let origin = numbered().await;
        let node = over(&origin, &sealed_at(&redis), BELOW).await;
        ask(&node, "/a").await;
        written(&node, 1.0).await;
        let record = records(&redis).await.remove(0);
        let script = format!(
            "local b, t = KEYS[1]:sub(1, -2) .. 'b', KEYS[1]:sub(1, -2) .. 't'
redis.call('SET', KEYS[1], 'garbage', 'PX', 315360000000)
{forge}"
        );
        eval(&redis, &script, &[&record]).await;
        assert_eq!(ask(&node, "/a").await.text(), "/a 2", "{name}");
        written(&node, 2.0).await;
        let began = Instant::now();
        let answer = ask(&node, "/a").await;
        assert!(answer.is_hit() && began.elapsed() < SOON, "{name}");
    }
}

/// Guards the tests above: a record that nobody touched is found by the other node.
#[tokio::test]
async fn sealed_records_are_shared_and_purges_reach_all_nodes() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let one = over(&origin, &sealed_at(&redis), BELOW).await;
    let other = over(&origin, &sealed_at(&redis), BELOW).await;
    assert_eq!(ask(&one, "/a").await.text(), "/a 1");
    written(&one, 1.0).await;
    assert!(ask(&other, "/a").await.is_hit());
    for n in 1..=3_u32 {
        let (purging, hearing) = if n % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        let receipt = purging.purge(json!({"url": "http://site.example/a"})).await;
        assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
        let version = format!("/a {n}");
        wait_for("the other node heard of it", SOON, || async {
            (ask(hearing, "/a").await.text() != version).then_some(())
        })
        .await;
        assert_ne!(ask(purging, "/a").await.text(), version);
    }
    for node in [&one, &other] {
        assert_eq!(
            node.metric("lamina_l2_purge_log_gaps_total", &[]).await,
            0.0
        );
    }
}
