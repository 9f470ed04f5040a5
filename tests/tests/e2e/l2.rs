//! The second tier through the front door: what a restart keeps, what nodes share, and
//! that nobody notices when it is not there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::cli;
use e2e::client::Answer;
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for, within};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

/// A gateway in front of `origin`, over the store that `l2` says, which it reads.
pub async fn over(origin: &Origin, l2: &str, policy: &str) -> Gateway {
    let gateway = Setup::new(origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .policy(policy)
        .start()
        .await;
    reads_below(&gateway).await;
    gateway
}

/// Waits until a node has read the store's log of purges, before which it reads nothing else.
pub async fn reads_below(gateway: &Gateway) {
    wait_for("it reads below", SOON, || async {
        let url = json!({"url": "http://site.example/"}).to_string();
        let told = gateway.admin(Method::POST, "/v1/explain", &url).await;
        (!told.text.contains("can't be read at the moment")).then_some(())
    })
    .await;
}

/// Patience beyond any test's: on a busy machine a store that works is waited for, and
/// who waits without need is noticed.
pub const PATIENCE: &str =
    "read_timeout: 10m, write_timeout: 10m, lease: {ttl: 5m, wait_timeout: 10m}";

/// A Redis that is waited for.
pub fn redis_at(url: &str) -> String {
    format!("{{redis: {{url: \"{url}\", connect_timeout: 1m, silence_timeout: 10m}}, {PATIENCE}}}")
}

/// A disk that is waited for.
fn disk_at(folder: &Path) -> String {
    let path = folder.join("l2");
    format!("{{disk: {{path: \"{}\"}}, {PATIENCE}}}", path.display())
}

/// Longer than any test takes.
pub const LASTING: &str = "{mode: override, ttl: 1d}";

/// An origin whose page says `v1`, `v2`, … by request.
pub async fn versions() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::pages(move |_| Reply::ok(format!("v{}", count.fetch_add(1, Ordering::SeqCst) + 1)))
        .await
}

/// The same, with a first version that is stale when it comes, and others that stay fresh.
pub async fn stale_at_first() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::pages(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        let life = if n == 1 { 0 } else { 86_400 };
        Reply::ok(format!("v{n}")).header("cache-control", &format!("max-age={life}"))
    })
    .await
}

/// Waits until `n` records were written.
pub async fn written(gateway: &Gateway, n: f64) {
    let labels = [("outcome", "stored")];
    gateway
        .metric_until("lamina_l2_writes_total", &labels, |count| count >= n)
        .await;
}

pub async fn ask(gateway: &Gateway, path: &str) -> Answer {
    let request = gateway.client().request(path).host("site.example");
    request.send().await
}

async fn stop(mut gateway: Gateway) {
    gateway.terminate();
    assert!(gateway.ended(SOON).await.success());
}

#[tokio::test]
async fn a_restart_on_a_disk_begins_warm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    // Nothing is made durable by the clock: the drain has to.
    let l2 = format!("{{disk: {{path: \"{path}/l2\", sync_interval: 1h}}, {PATIENCE}}}");
    let origin = versions().await;
    let first = over(&origin, &l2, LASTING).await;
    let loaded = ask(&first, "/a").await;
    ask(&first, "/b").await;
    stop(first).await;
    passed(loaded.at, Duration::from_millis(1_100)).await;
    let again = over(&origin, &l2, LASTING).await;
    let answer = ask(&again, "/a").await;
    assert_eq!(answer.text(), "v1");
    assert!(
        answer.is_hit() && answer.age() >= Some(1),
        "{:?}",
        answer.headers
    );
    assert_eq!(ask(&again, "/b").await.text(), "v2");
    assert_eq!(origin.count(), 2);
    again.purge(json!({"url": "http://site.example/a"})).await;
    stop(again).await;
    let third = over(&origin, &l2, LASTING).await;
    assert_eq!(ask(&third, "/a").await.text(), "v3", "a purge is kept, too");
    assert_eq!(ask(&third, "/b").await.text(), "v2");
}

/// What loads nothing for others is answered from below as well.
#[tokio::test]
async fn head_and_only_if_cached_find_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let l2 = disk_at(folder.path());
    let policy = "{mode: override, ttl: 1d, request_directives: honor}";
    let origin = versions().await;
    let first = over(&origin, &l2, policy).await;
    ask(&first, "/a").await;
    ask(&first, "/b").await;
    stop(first).await;
    let again = over(&origin, &l2, policy).await;
    let asked = |method, path| again.client().ask(method, path).host("site.example");
    let head = asked(Method::HEAD, "/a").send().await;
    assert!(head.is_hit(), "{:?}", head.headers);
    let only = || asked(Method::GET, "/b").header("cache-control", "only-if-cached");
    assert_eq!(only().send().await.text(), "v2");
    let missing = asked(Method::GET, "/c").header("cache-control", "only-if-cached");
    assert_eq!(missing.send().await.status, 504);
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_disk_that_another_gateway_uses_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let l2 = disk_at(folder.path());
    let origin = versions().await;
    let _first = over(&origin, &l2, LASTING).await;
    let setup = Setup::new(&origin).top("cache", &format!("{{l2: {l2}}}"));
    let (dir, config) = setup.write();
    let Err(refused) = Gateway::try_start(dir, &config, &[]).await else {
        panic!("two gateways on one file");
    };
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.log.contains("in use by another process"),
        "{}",
        refused.log
    );
}

#[tokio::test]
async fn a_purge_on_one_node_is_followed_by_the_other() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, LASTING).await;
    let other = over(&origin, &l2, LASTING).await;
    assert_eq!(ask(&one, "/").await.text(), "v1");
    written(&one, 1.0).await;
    let shared = ask(&other, "/").await;
    assert_eq!(shared.text(), "v1");
    assert!(shared.is_hit(), "{:?}", shared.headers);
    let receipt = one.purge(json!({"url": "http://site.example/"})).await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
    wait_for("the other node heard of it", SOON, || async {
        (ask(&other, "/").await.text() != "v1").then_some(())
    })
    .await;
    assert_ne!(ask(&one, "/").await.text(), "v1");
    assert_eq!(origin.count(), 2, "one load for both");
}

#[tokio::test]
async fn variants_are_found_by_another_node_and_never_mixed() {
    let redis = Redis::start().await;
    let origin = Origin::pages(|seen| {
        Reply::fresh(format!("in {}", seen.header("accept-language")))
            .header("vary", "accept-language")
    })
    .await;
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, "{}").await;
    let other = over(&origin, &l2, "{}").await;
    for (gateway, hit) in [(&one, false), (&other, true)] {
        for language in ["de", "fr"] {
            let ask = gateway.client().request("/").host("site.example");
            let answer = ask.header("accept-language", language).send().await;
            assert_eq!(answer.text(), format!("in {language}"));
            assert_eq!(answer.is_hit(), hit, "{:?}", answer.headers);
        }
        written(&one, 4.0).await;
    }
    assert_eq!(origin.count(), 2);
    // A herd on a cold node: leader and followers want different variants.
    let third = over(&origin, &l2, "{}").await;
    let asks = (0..40).map(|n| {
        let language = if n % 2 == 0 { "de" } else { "fr" };
        let ask = third.client().request("/").host("site.example");
        async move {
            let answer = ask.header("accept-language", language).send().await;
            assert_eq!(answer.text(), format!("in {language}"));
        }
    });
    join_all(asks).await;
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_stale_copy_from_below_is_served_while_it_is_refreshed() {
    let redis = Redis::start().await;
    let origin = stale_at_first().await;
    let policy = "{stale_while_revalidate: 1d}";
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, policy).await;
    ask(&one, "/").await;
    written(&one, 1.0).await;
    let cold = over(&origin, &l2, policy).await;
    let answer = ask(&cold, "/").await;
    assert_eq!(answer.text(), "v1");
    assert!(answer.is_hit(), "{:?}", answer.headers);
    origin.saw(2).await;
    wait_for("the refresh is there", SOON, || async {
        (ask(&cold, "/").await.text() != "v1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stale_copy_from_below_stands_in_for_a_failed_load() {
    let redis = Redis::start().await;
    let fails = Arc::new(AtomicBool::new(false));
    let origin = {
        let fails = Arc::clone(&fails);
        Origin::pages(move |_| match fails.load(Ordering::SeqCst) {
            true => Reply::status_only(503),
            false => Reply::ok("v1").header("cache-control", "max-age=0"),
        })
        .await
    };
    let policy = "{stale_if_error: 1d}";
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, policy).await;
    ask(&one, "/").await;
    written(&one, 1.0).await;
    fails.store(true, Ordering::SeqCst);
    let cold = over(&origin, &l2, policy).await;
    let answer = ask(&cold, "/").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "v1"));
}

#[tokio::test]
async fn a_frozen_store_costs_one_deadline_and_is_used_again_when_it_thaws() {
    let redis = Redis::start().await;
    let origin = versions().await;
    // Only the deadline of a read stands between a request and ten minutes of silence.
    let l2 = format!(
        "{{redis: {{url: \"{}\", silence_timeout: 10m}}, write_timeout: 10m, breaker: {{cooldown: 500ms}}}}",
        redis.url()
    );
    let gateway = over(&origin, &l2, LASTING).await;
    let client = gateway.client();
    client.get("/warm").await;
    stores_again(&gateway).await;
    let unknown = || gateway.metric("lamina_l2_leases_total", &[("outcome", "unknown")]);
    let skipped = [("operation", "get"), ("outcome", "skipped")];
    let skipped = || gateway.metric("lamina_l2_calls_total", &skipped);
    let (before, tried) = (unknown().await, skipped().await);
    redis.freeze();
    for n in 0..20 {
        let answer = within("a page", SOON, client.get(&format!("/{n}"))).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert!(client.get("/warm").await.is_hit());
    }
    let after = unknown().await;
    assert_eq!(after, before, "after a call in vain no other is made");
    assert!(skipped().await > tried, "each page cost a deadline");
    redis.thaw();
    stores_again(&gateway).await;
}

/// Asks for pages until a record is written.
pub async fn stores_again(gateway: &Gateway) {
    let stored = || gateway.metric("lamina_l2_writes_total", &[("outcome", "stored")]);
    let (before, client) = (stored().await, gateway.client());
    let mut n = 0;
    wait_for("it is written to", SOON, || {
        n += 1;
        let path = format!("/{before}/{n}");
        let (client, stored) = (&client, &stored);
        async move {
            client.get(&path).await;
            (stored().await > before).then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_that_is_gone_leaves_no_copy_below() {
    let redis = Redis::start().await;
    let gone = Arc::new(AtomicBool::new(false));
    let origin = {
        let gone = Arc::clone(&gone);
        Origin::pages(move |_| match gone.load(Ordering::SeqCst) {
            true => Reply::status_only(404).header("cache-control", "no-store"),
            false => Reply::ok("v1").header("cache-control", "max-age=0, stale-if-error=86400"),
        })
        .await
    };
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, "{}").await;
    ask(&one, "/").await;
    written(&one, 1.0).await;
    gone.store(true, Ordering::SeqCst);
    assert_eq!(ask(&one, "/").await.status.as_u16(), 404);
    wait_for("the record is gone", SOON, || async {
        let keys = redis.cli(&["--scan", "--pattern", "lamina:*r"]).await;
        keys.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn explain_tells_what_each_tier_holds() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, LASTING).await;
    ask(&one, "/").await;
    written(&one, 1.0).await;
    let cold = over(&origin, &l2, LASTING).await;
    let body = json!({"url": "http://site.example/"}).to_string();
    let answer = cold.admin(Method::POST, "/v1/explain", &body).await;
    let told: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(told["tiers"][0], "l1: nothing", "{told}");
    let below = told["tiers"][1].as_str().unwrap();
    assert!(
        below.starts_with("redis: fresh, 200, 2 bytes, age 0 s, ttl "),
        "{told}"
    );
}

#[tokio::test]
async fn doctor_measures_the_store_and_says_what_it_guarantees() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let doctor = |l2: &str| {
        let setup = Setup::new(&origin).top("cache", &format!("{{l2: {l2}}}"));
        let (_dir, config) = setup.write();
        let ran = cli::run(&["doctor", "-c", config.to_str().unwrap()]);
        (ran.code, ran.output())
    };
    let (code, said) = doctor(&redis_at(&redis.url()));
    assert_eq!(code, Some(0), "{said}");
    for word in [
        "get 1 KiB",
        "append purge",
        "only one of all nodes loads a key at a time",
        "seal_key_file",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (code, said) = doctor(&redis_at(&format!("redis://127.0.0.1:{}", free_port())));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("connect        FAILED  not reachable"),
        "{said}"
    );
    let (code, said) = doctor("{}");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("after a restart the cache is empty"),
        "{said}"
    );
}

#[tokio::test]
async fn record_inspect_shows_what_the_store_holds_for_a_url() {
    let redis = Redis::start().await;
    let origin = Origin::pages(|_| Reply::fresh("page").header("vary", "accept-language")).await;
    let l2 = redis_at(&redis.url());
    let gateway = over(&origin, &l2, "{}").await;
    let ask = gateway.client().request("/a").host("site.example");
    ask.header("accept-language", "de").send().await;
    written(&gateway, 2.0).await;
    let setup = Setup::new(&origin).top("cache", &format!("{{l2: {l2}}}"));
    let (_dir, config) = setup.write();
    let inspect = |url: &str, language: &str| {
        let config = config.to_str().unwrap();
        let header = format!("Accept-Language: {language}");
        let ran = cli::run(&["record", "inspect", url, "-c", config, "-H", &header]);
        (ran.code, ran.output())
    };
    let (code, said) = inspect("http://site.example/a", "de");
    assert_eq!(code, Some(0), "{said}");
    for word in ["varies    accept-language", "status    200", "seal      ok"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (_, said) = inspect("http://site.example/a", "fr");
    assert!(!said.contains("status    200"), "not this variant: {said}");
    let (code, said) = inspect("http://site.example/b", "de");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("nothing is stored for this request"),
        "{said}"
    );
}
