//! A gateway over a real Redis that won't or can't: what clients see of it, which metric
//! names it, and that it is used again by itself.
//!
//! Every answer meanwhile is the origin's, whole. How long it may take is not measured but
//! configured: patience elsewhere is ten minutes, so whoever waits without need is noticed.

use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::redis::{self, Redis};
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use e2e::wire::Wire;

use crate::l2::{ask, over, reads_below};
use crate::l2_gateway_damage::{BELOW, numbered};

/// Deadlines that end no call, and a breaker that rests for moments.
pub const CALM: &str = "read_timeout: 10m, write_timeout: 10m, breaker: {cooldown: 200ms}";

/// A series and the labels that tell a fault.
pub type Tells<'a> = (&'a str, &'a [(&'a str, &'a str)]);

pub const fn refused<'a>(reason: &'a [(&'a str, &'a str)]) -> Tells<'a> {
    ("lamina_l2_refusals_total", reason)
}

fn calm(url: &str) -> String {
    format!("{{redis: {{url: \"{url}\", connect_timeout: 1m, silence_timeout: 10m}}, {CALM}}}")
}

/// One page, whole and right, whatever the store does.
pub async fn served(node: &Gateway, path: &str) {
    let answer = within("a page", SOON, ask(node, path)).await;
    assert_eq!(answer.status.as_u16(), 200, "{path}: {:?}", answer.headers);
    assert!(
        answer.text().starts_with(&format!("{path} ")),
        "{path}: {}",
        answer.text()
    );
}

/// Serves new pages until the fault has been told; what it was told before doesn't count.
pub async fn told(node: &Gateway, (name, labels): Tells<'_>) {
    let before = node.metric(name, labels).await;
    let mut n = 0;
    wait_for(&format!("{name}{labels:?} rises"), SOON * 2, || {
        n += 1;
        let path = format!("/told/{before}/{n}");
        async move {
            served(node, &path).await;
            (node.metric(name, labels).await > before).then_some(())
        }
    })
    .await;
}

/// How often one page is asked for in hope of its being written.
const TRIES: u32 = 100;

/// Serves new pages until one was written, and then the last of them until it comes from
/// below. New ones: a write that its caller gave up may have come to the store all the same,
/// and such a page is never written again. The first is `/again/` and the hits from below
/// so far.
pub async fn used_again(node: &Gateway) {
    let (stored, hit) = ([("outcome", "stored")], [("tier", "l2"), ("result", "hit")]);
    let writes = || node.metric("lamina_l2_writes_total", &stored);
    let hits = || node.metric("lamina_cache_lookups_total", &hit);
    let (before, series) = (writes().await, hits().await);
    let mut path = format!("/again/{series}");
    let mut tries = 0;
    wait_for("the store is written to again", SOON * 3, || {
        tries += 1;
        if tries % TRIES == 0 {
            path = format!("/again/{series}/{tries}");
        }
        let path = path.clone();
        async move {
            served(node, &path).await;
            let writes = node.metric("lamina_l2_writes_total", &stored);
            (writes.await > before).then_some(())
        }
    })
    .await;
    let before = hits().await;
    wait_for("the store is read again", SOON * 3, || async {
        served(node, &path).await;
        (hits().await > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_redis_takes_nothing_more_and_still_gives() {
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let origin = numbered().await;
    let node = over(&origin, &calm(&redis.url()), BELOW).await;
    used_again(&node).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    told(&node, refused(&[("reason", "out-of-memory")])).await;
    let before = origin.count_of("/again/0");
    let kept = ask(&node, "/again/0").await;
    assert!(kept.is_hit(), "{:?}", kept.cache());
    assert_eq!(origin.count_of("/again/0"), before, "it came from below");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    used_again(&node).await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_used_when_it_has_them() {
    if redis::major_version() < 7 {
        eprintln!("an older Redis can't be made to load slowly enough");
        return;
    }
    let mut redis = Redis::start().await;
    let origin = numbered().await;
    let node = over(&origin, &calm(&redis.url()), BELOW).await;
    used_again(&node).await;
    redis.cli(&["DEBUG", "POPULATE", "30000"]).await;
    redis.cli(&["SAVE"]).await;
    // Five minutes, with a look at the sockets now and then.
    redis.respawn(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    told(&node, refused(&[("reason", "loading")])).await;
    redis.cli(&["CONFIG", "SET", "key-load-delay", "0"]).await;
    used_again(&node).await;
    let before = origin.count_of("/again/0");
    served(&node, "/again/0").await;
    assert_eq!(
        origin.count_of("/again/0"),
        before,
        "what was saved is served"
    );
}

/// A node that introduces itself as `user`.
async fn introduced(redis: &Redis, user: &str, origin: &e2e::origin::Origin) -> Gateway {
    let url = redis.url();
    let l2 = format!("{{redis: {{url: \"{url}\", {user}, connect_timeout: 1m}}, {CALM}}}");
    Setup::new(origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .file("secret", "ours\n")
        .policy(BELOW)
        .start()
        .await
}

#[tokio::test]
async fn a_wrong_password_is_told_and_heals_when_it_is_right() {
    let redis = Redis::start().await;
    redis
        .cli(&["CONFIG", "SET", "requirepass", "another"])
        .await;
    let origin = numbered().await;
    let node = introduced(&redis, "password_file: secret", &origin).await;
    told(&node, refused(&[("reason", "no-access")])).await;
    let said = node
        .logged("why not", |line| line.contains("no connection to Redis"))
        .await;
    assert!(
        said.contains("WRONGPASS") && !said.contains("ours"),
        "{said}"
    );
    let right = ["-a", "another", "CONFIG", "SET", "requirepass", "ours"];
    assert_eq!(redis.cli(&right).await, "OK");
    used_again(&node).await;
}

#[tokio::test]
async fn a_user_without_the_right_is_told_and_heals_when_it_has_it() {
    let redis = Redis::start().await;
    redis
        .cli(&[
            "ACL", "SETUSER", "edge", "on", ">ours", "~other:*", "&*", "+@all",
        ])
        .await;
    let origin = numbered().await;
    let node = introduced(&redis, "username: edge, password_file: secret", &origin).await;
    told(&node, refused(&[("reason", "no-access")])).await;
    redis.cli(&["ACL", "SETUSER", "edge", "~lamina:*"]).await;
    used_again(&node).await;
}

#[tokio::test]
async fn a_slow_line_costs_a_deadline_until_calls_are_not_tried() {
    let redis = Redis::start().await;
    let wire = Wire::to(redis.port).await;
    let origin = numbered().await;
    let l2 = format!(
        "{{redis: {{url: \"redis://{}\", connect_timeout: 1m, silence_timeout: 10m}}, \
          read_timeout: 1s, write_timeout: 1s, breaker: {{cooldown: 200ms}}}}",
        wire.address
    );
    let node = over(&origin, &l2, BELOW).await;
    reads_below(&node).await;
    used_again(&node).await;
    wire.slow(Duration::from_secs(3));
    told(
        &node,
        (
            "lamina_l2_calls_total",
            &[("operation", "get"), ("outcome", "timeout")],
        ),
    )
    .await;
    told(
        &node,
        (
            "lamina_l2_calls_total",
            &[("operation", "get"), ("outcome", "skipped")],
        ),
    )
    .await;
    wire.slow(Duration::ZERO);
    used_again(&node).await;
    node.metric_until("lamina_l2_breaker_open", &[], |open| open == 0.0)
        .await;
}
