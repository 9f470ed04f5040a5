//! Bad guests, called through the front door: whatever one does costs that one call. Its
//! client gets what `on_error` says, the other routes go on, and metrics, log and admin say
//! what it was.
//!
//! Where each bad guest of plugins.md is:
//! - endless loop, recursion, memory growth, table growth, host-call storm, huge log, keys
//!   and responses that break a rule: here; the same as hook `request`: `plugin_hooks`; as
//!   `wasi:http`: `plugin_wasi`;
//! - fetches: `plugin_bad_fetches`, and of `wasi:http`: `plugin_wasi`;
//! - files that are no plugin, among them a trap in start, a huge table, 100 MB: `plugin_bad_files`;
//! - another key on each call for the same inputs: `plugin_watch`;
//! - a thousand traps in a row: `plugins`; all of them too often: `plugin_quarantine`.

use e2e::client::herd;
use e2e::gateway::Gateway;
use e2e::guest::wrong::{self, endless, key, response};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use serde_json::Value;

/// For guests that end by themselves, on a busy machine, too.
const PATIENT: &str = "key_timeout: 20s, load_timeout: 10m";
/// For guests that never do.
const SHORT: &str = "key_timeout: 50ms, load_timeout: 300ms";

/// One guest as three plugins, one for each word of `on_error`, each on a route of that
/// name; and a plain route.
struct BadPlugin {
    phase: &'static str,
    gateway: Gateway,
}

const KEY_WORDS: [&str; 3] = ["bypass", "default_key", "refuse"];
const LOADER_WORDS: [&str; 3] = ["stale_then_error", "origin", "error"];

async fn as_key(guest: Vec<u8>, limits: &str) -> BadPlugin {
    let route = "upstream: origin, key: {plugin: NAME}";
    let gateway = beside_a_plain_route(guest, limits, (&KEY_WORDS, "key"), route).await;
    BadPlugin {
        phase: "key",
        gateway,
    }
}

async fn as_loader(guest: Vec<u8>, limits: &str) -> BadPlugin {
    let route = "upstream: origin, loader: {plugin: NAME}";
    let gateway = beside_a_plain_route(guest, limits, (&LOADER_WORDS, "loader"), route).await;
    BadPlugin {
        phase: "load",
        gateway,
    }
}

async fn beside_a_plain_route(
    guest: Vec<u8>,
    limits: &str,
    (words, hook): (&[&str; 3], &str),
    route: &str,
) -> Gateway {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let plugin = |name: &&str| {
        format!(
            "{name}: {{file: bad.wasm, fetch: [origin], grant: [kv, clock], quarantine: {{failures: 0}}, limits: {{{limits}, max_memory: 8MiB, recycle_memory: 8MiB}}, on_error: {{{hook}: {name}}}}}"
        )
    };
    let plugins: Vec<_> = words.iter().map(plugin).collect();
    let mut setup = Setup::new(&origin)
        .file("bad.wasm", guest)
        .top("plugins", &format!("{{{}}}", plugins.join(", ")));
    for name in words {
        let route = route.replace("NAME", name);
        setup = setup.route(&format!(
            "{{name: {name}, match: {{path: /{name}/*}}, {route}}}"
        ));
    }
    let gateway = setup.route("{name: plain, upstream: origin}").start().await;
    // It must outlive the gateway.
    std::mem::forget(origin);
    gateway
}

impl BadPlugin {
    /// All that a call which failed as `outcome`, for a reason with these words in it, must
    /// and must not do.
    async fn costs_its_call_alone(&self, outcome: &str, why: &str) {
        let words = match self.phase {
            "key" => self.clients_of_keys().await,
            _ => self.clients_of_loaders(outcome).await,
        };
        let client = self.gateway.client();
        client.get("/plain").await;
        assert!(client.get("/plain").await.is_hit(), "others go on");
        for word in words {
            self.told(word, outcome, why).await;
        }
        let list = self.gateway.admin(Method::GET, "/v1/plugins", "").await;
        let list: Value = serde_json::from_str(&list.text).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        assert_eq!(plugins.len(), words.len());
        for plugin in plugins {
            assert_eq!(
                (&plugin["state"], &plugin["instances"]),
                (&"serving".into(), &0.into())
            );
        }
    }

    async fn clients_of_keys(&self) -> [&'static str; 3] {
        let client = self.gateway.client();
        for _ in 0..2 {
            let bypass = client.get("/bypass/x").await;
            assert_eq!((bypass.status.as_u16(), bypass.text()), (200, "/bypass/x"));
            assert!(
                bypass.cache().forwarded_as("bypass"),
                "{:?}",
                bypass.cache()
            );
            assert_eq!(bypass.cache().detail.as_deref(), Some("key-plugin-failed"));
        }
        client.get("/default_key/x").await;
        assert!(client.get("/default_key/x").await.is_hit());
        for _ in 0..2 {
            assert_eq!(client.get("/refuse/x").await.status, 500);
        }
        KEY_WORDS
    }

    async fn clients_of_loaders(&self, outcome: &str) -> [&'static str; 3] {
        let client = self.gateway.client();
        let failure = if outcome == "timeout" { 504 } else { 502 };
        for round in 0..2 {
            for word in ["stale_then_error", "error"] {
                let answer = client.get(&format!("/{word}/{round}")).await;
                assert_eq!(answer.status, failure, "{word}");
                assert!(
                    !answer.text().contains("trap"),
                    "it is nobody's business: {}",
                    answer.text()
                );
            }
            let path = format!("/origin/{round}");
            assert_eq!(client.get(&path).await.text(), path);
        }
        LOADER_WORDS
    }

    /// What metrics, log and admin say of the plugin after two calls.
    async fn told(&self, plugin: &str, outcome: &str, why: &str) {
        let gateway = &self.gateway;
        let scrape = gateway.scrape().await;
        let calls = |more: &[(&str, &str)]| {
            let labels = [&[("plugin", plugin), ("phase", self.phase)], more].concat();
            scrape.sum("lamina_plugin_calls_total", &labels)
        };
        assert_eq!(
            (calls(&[("outcome", outcome)]), calls(&[])),
            (2.0, 2.0),
            "{plugin} {outcome}"
        );
        let what = match self.phase {
            "key" => "a key plugin failed",
            _ => "a loader plugin failed",
        };
        let said = |line: &str| {
            let names = line.contains(what) && line.contains(&format!("\"plugin\":\"{plugin}\""));
            names && line.contains(why)
        };
        gateway.logged(&format!("{what}: {why}"), said).await;
        let path = format!("/v1/plugins/{plugin}/calls");
        let kept = gateway.admin(Method::GET, &path, "").await;
        let kept: Value = serde_json::from_str(&kept.text).unwrap();
        let errors: Vec<_> = kept
            .as_array()
            .unwrap()
            .iter()
            .map(|call| &call["error"])
            .collect();
        assert_eq!(errors.len(), 2);
        assert!(
            errors.iter().all(|e| e.as_str().unwrap().contains(why)),
            "{why:?} in {errors:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_loop_is_ended_at_its_deadline() {
    as_key(endless::looping(), SHORT)
        .await
        .costs_its_call_alone("timeout", "deadline exceeded (`limits.key_timeout`)")
        .await;
    as_loader(endless::looping(), SHORT)
        .await
        .costs_its_call_alone("timeout", "deadline exceeded (`limits.load_timeout`)")
        .await;
}

#[tokio::test]
async fn endless_recursion_ends_with_its_stack() {
    let why = "call stack exhausted";
    as_key(endless::recursion(), PATIENT)
        .await
        .costs_its_call_alone("trap", why)
        .await;
    as_loader(endless::recursion(), PATIENT)
        .await
        .costs_its_call_alone("trap", why)
        .await;
}

#[tokio::test]
async fn memory_without_end_ends_at_its_cap() {
    let why = "8388608 are allowed (bytes, `limits.max_memory`)";
    as_key(endless::memory(), PATIENT)
        .await
        .costs_its_call_alone("out_of_memory", why)
        .await;
    as_loader(endless::memory(), PATIENT)
        .await
        .costs_its_call_alone("out_of_memory", why)
        .await;
}

#[tokio::test]
async fn a_table_that_grows_without_end_ends_at_its_cap() {
    let why = "100000 are allowed";
    as_key(endless::table(), PATIENT)
        .await
        .costs_its_call_alone("out_of_memory", why)
        .await;
    as_loader(endless::table(), PATIENT)
        .await
        .costs_its_call_alone("out_of_memory", why)
        .await;
}

#[tokio::test]
async fn a_key_that_breaks_a_rule_is_a_failed_call() {
    for (guest, why) in [
        (key::empty(), "the key is empty"),
        (key::not_utf8(), "utf-8"),
        (
            key::of_a_megabyte(),
            "1048576 bytes of the key; 8192 are allowed",
        ),
        (key::past_the_end(), "out of bounds"),
        (key::of_no_case(), "discriminant"),
    ] {
        as_key(guest, PATIENT)
            .await
            .costs_its_call_alone("invalid", why)
            .await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_a_rule_is_a_failed_call() {
    for (guest, why) in [
        (
            response::with_status(99),
            "the status 99; 200 to 599 are allowed",
        ),
        (response::with_two_lines_in_one(), "the header"),
        (response::with_a_line_in_a_name(), "the header"),
        (
            response::with_a_body_of(20_000),
            "20000 bytes of the body (`limits.max_body`); 16384 are allowed",
        ),
        (response::with_a_body_of(u32::MAX), "out of bounds"),
    ] {
        let limits = format!("{PATIENT}, max_body: 16KiB");
        as_loader(guest, &limits)
            .await
            .costs_its_call_alone("invalid", why)
            .await;
    }
}

#[tokio::test]
async fn a_content_length_that_lies_is_put_right() {
    let bad = as_loader(response::with_a_length_that_lies(), PATIENT).await;
    for _ in 0..2 {
        let answer = bad.gateway.client().get("/error/x").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "bad"));
        assert_eq!(answer.header("content-length"), "3");
    }
}

#[tokio::test]
async fn a_storm_of_calls_to_the_host_ends_at_its_deadline_and_fills_no_log() {
    as_key(wrong::storm(), SHORT)
        .await
        .costs_its_call_alone("timeout", "deadline exceeded")
        .await;
    let bad = as_loader(wrong::storm(), SHORT).await;
    bad.costs_its_call_alone("timeout", "deadline exceeded")
        .await;
    let denied = bad
        .gateway
        .metric("lamina_plugin_denied_fetches_total", &[])
        .await;
    assert!(denied > 100.0, "it was a storm: {denied}");
    let lines = bad.gateway.log().len() as f64;
    assert!(lines < denied / 2.0, "{lines} lines for {denied} fetches");
}

#[tokio::test]
async fn others_are_answered_while_storms_and_loops_run() {
    for guest in [wrong::storm(), endless::looping()] {
        let bad = as_loader(guest, "load_timeout: 2s").await;
        let client = bad.gateway.client();
        let running = tokio::spawn(async move { herd(&client, 16, "/error/x").await });
        let live = |instances: f64| instances > 0.0;
        let labels = [("plugin", "error")];
        bad.gateway
            .metric_until("lamina_plugin_instances", &labels, live)
            .await;
        for n in 0..50 {
            let answer = bad.gateway.client().get(&format!("/plain/{n}")).await;
            assert_eq!(answer.status, 200);
        }
        for answer in running.await.unwrap() {
            assert_eq!(answer.unwrap().status, 504);
        }
    }
}

#[tokio::test]
async fn long_lines_are_cut_and_those_that_are_too_many_are_counted() {
    let bad = as_key(wrong::long_lines(), PATIENT).await;
    let before = std::time::Instant::now();
    for n in 0..2 {
        assert_eq!(
            bad.gateway
                .client()
                .get(&format!("/refuse/{n}"))
                .await
                .status,
            200
        );
    }
    let logged = |line: &str| line.contains("LLLL");
    bad.gateway.logged("the first line", logged).await;
    // The limit lets 20 lines through at once, and 10 a second.
    let most = 20.0 + 10.0 * (before.elapsed().as_secs_f64() + 1.0);
    let lines: Vec<_> = bad
        .gateway
        .log()
        .into_iter()
        .filter(|line| logged(line))
        .collect();
    assert!((lines.len() as f64) <= most, "{} lines", lines.len());
    assert!(
        lines.iter().all(|line| line.len() < 3 << 10),
        "each is cut at 2 KiB"
    );
}
