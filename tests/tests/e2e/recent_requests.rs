//! The last requests, and what each of them tells of its way.

use e2e::cli::run;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h2raw::{H2, code, get, reset};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::Value;

const TOKEN: &str = "a-token-for-reading";
const ADMIN: &str = "{address: \"127.0.0.1:0\", token: a-token-for-reading}";

/// A site whose admin listener asks for a token; of hits each is kept.
fn asked_by_token(origin: &Origin) -> Setup {
    Setup::new(origin).top("admin", ADMIN).top(
        "telemetry",
        "{log_format: json, recent_requests: {one_hit_in: 1}}",
    )
}

/// An origin whose answers wait for the gate to be opened.
async fn gated() -> (Origin, Gate) {
    let gate = Gate::new();
    let stands = gate.clone();
    let origin = Origin::start(move |asked| {
        let gate = stands.clone();
        async move {
            asked.read().await;
            gate.pass().await;
            Reply::fresh("x")
        }
    });
    (origin.await, gate)
}

async fn started(origin: &Origin) -> Gateway {
    asked_by_token(origin).start().await.with_token(TOKEN)
}

async fn recent(gateway: &Gateway, query: &str) -> Vec<Value> {
    let path = format!("/v1/requests/recent?{query}");
    let answer = gateway.admin(Method::GET, &path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut answer: Value = serde_json::from_str(&answer.text).unwrap();
    answer["requests"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap()
}

/// The record of the newest request whose URL has this in it, once it is there.
async fn record(gateway: &Gateway, contains: &str) -> Value {
    let query = format!("contains={contains}&limit=1");
    wait_for("the request is among the last ones", SOON, async || {
        recent(gateway, &query).await.into_iter().next()
    })
    .await
}

/// All that is told of its way.
fn told(record: &Value) -> String {
    let steps = record["steps"].as_array().unwrap();
    let steps = steps.iter().map(|step| step["what"].as_str().unwrap());
    steps.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_miss_tells_why_and_whom_it_asked_and_a_hit_that_it_was_one() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = started(&origin).await;
    gateway.client().get("/page?a=1").await;
    let miss = record(&gateway, "/page").await;
    let way = told(&miss);
    for part in [
        "Its key is ",
        "The first tier has nothing under this key.",
        "It leads the load",
        &format!("Upstream origin, target {}: answered 200", origin.address()),
        "The answer is stored; its lifetime is ",
    ] {
        assert!(way.contains(part), "{part} in {way}");
    }
    assert_eq!(miss["result"], "miss");
    assert_eq!(miss["status"], 200);
    assert_eq!(miss["route"], "site");
    assert_eq!(miss["complete"], true);
    assert_eq!(miss["end"], "It was answered 200 by its own load.");
    assert!(
        miss["url"].as_str().unwrap().ends_with("/page?a=1"),
        "{miss}"
    );
    assert!(
        miss["cache_status"]
            .as_str()
            .unwrap()
            .contains("fwd=uri-miss"),
        "{miss}"
    );
    gateway.client().get("/page?a=1").await;
    let hit = wait_for("the hit is among the last ones", SOON, async || {
        recent(&gateway, "result=hit").await.into_iter().next()
    })
    .await;
    assert_eq!(hit["end"], "It was answered 200 from the cache.");
    assert!(hit["id"].as_u64() > miss["id"].as_u64());
}

/// Where nobody reads the record of a hit, that of a request which turns out to be a miss begins
/// after the rules of its route.
#[tokio::test]
async fn a_miss_tells_of_the_limit_that_it_was_above_and_what_its_client_asked_for() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let rules = "limit: [counts], cookies: {drop: [_ga]}, accept_language: [de, en]";
    let gateway = Setup::new(&origin)
        .top("admin", ADMIN)
        .top("telemetry", "{access_log: off, log_format: json}")
        .top("limits", "{counts: {rate: 1/h, burst: 1, dry_run: true}}")
        .route(&format!("{{name: site, upstream: origin, {rules}}}"))
        .start()
        .await
        .with_token(TOKEN);
    let client = gateway.client().uncached();
    let ask = |path: &str| {
        client
            .ask(Method::GET, path)
            .header("user-agent", "a browser")
    };
    for path in ["/first", "/second"] {
        ask(path).header("cookie", "_ga=1; a=2").send().await;
    }
    let way = told(&record(&gateway, "/first").await);
    assert!(!way.contains("rate limit"), "{way}");
    let second = record(&gateway, "/second").await;
    let way = told(&second);
    assert!(
        way.contains("It is above the rate limit counts, which only counts (dry_run)."),
        "{way}"
    );
    assert_eq!(second["result"], "miss");
    assert!(way.contains("It leads the load"), "{way}");
}

#[tokio::test]
async fn what_is_not_stored_says_why_and_what_is_passed_says_so() {
    let origin = Origin::pages(|request| match request.path_only() {
        "/cookie" => Reply::fresh("x").header("set-cookie", "a=b"),
        _ => Reply::fresh("x"),
    })
    .await;
    let gateway = started(&origin).await;
    gateway.client().get("/cookie").await;
    let way = told(&record(&gateway, "/cookie").await);
    assert!(
        way.contains("The answer is not stored: set-cookie."),
        "{way}"
    );
    gateway.client().ask(Method::POST, "/form").send().await;
    let passed = record(&gateway, "/form").await;
    assert_eq!(passed["result"], "pass");
    let way = told(&passed);
    assert!(way.contains("its method is not GET or HEAD"), "{way}");
    assert!(way.contains("answered 200"), "{way}");
}

#[tokio::test]
async fn a_follower_names_the_request_that_leads() {
    let (origin, gate) = gated().await;
    let gateway = started(&origin).await;
    let (first, second) = (gateway.client(), gateway.client());
    let leading = tokio::spawn(async move { first.get("/slow").await });
    gate.reached_by(1).await;
    let following = tokio::spawn(async move { second.get("/slow").await });
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n == 1.0)
        .await;
    gate.open();
    leading.await.unwrap();
    following.await.unwrap();
    let leader = wait_for("the leader is there", SOON, async || {
        recent(&gateway, "result=miss").await.into_iter().next()
    })
    .await;
    let follower = wait_for("the follower is there", SOON, async || {
        recent(&gateway, "result=coalesced")
            .await
            .into_iter()
            .next()
    })
    .await;
    let wanted = format!("It waits for the load of request {}.", leader["id"]);
    assert!(told(&follower).contains(&wanted), "{wanted} in {follower}");
}

#[tokio::test]
async fn a_client_that_leaves_a_path_that_is_refused_and_no_route_are_there_too() {
    let (origin, gate) = gated().await;
    let setup =
        asked_by_token(&origin).route("{name: site, match: {path: /site/*}, upstream: origin}");
    let gateway = setup.start().await.with_token(TOKEN);
    assert_eq!(gateway.client().get("/nowhere").await.status, 404);
    let nowhere = record(&gateway, "/nowhere").await;
    assert_eq!(nowhere["end"], "No route matches it: 404.");
    assert_eq!(nowhere["route"], Value::Null);
    assert_eq!(gateway.client().get("/site/a%00b").await.status, 400);
    let refused = record(&gateway, "a%2500b").await;
    let end = refused["end"].as_str().unwrap();
    assert!(end.starts_with("It was refused with 400: "), "{end}");
    let mut raw = RawConnection::open(gateway.address).await;
    raw.write("GET /site/left HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    gate.reached_by(1).await;
    drop(raw);
    let left = record(&gateway, "/site/left").await;
    gate.open();
    assert_eq!(
        (&left["result"], &left["status"]),
        (&"left".into(), &499.into())
    );
    assert_eq!(left["end"], "The client left before there was an answer.");
    let line = gateway
        .logged("the access line of a client that left", |line| {
            line.contains("/site/left") && line.contains("499")
        })
        .await;
    assert!(line.contains(r#""complete":false"#), "{line}");
}

#[tokio::test]
async fn a_failed_load_names_each_attempt_and_the_stale_copy_that_stood_in() {
    let mut origin =
        Origin::pages(|_| Reply::ok("x").header("cache-control", "max-age=0, stale-if-error=600"))
            .await;
    let gateway = started(&origin).await;
    gateway.client().get("/page").await;
    origin.stop().await;
    assert_eq!(gateway.client().get("/page").await.status, 200);
    let stale = wait_for("the stale answer is there", SOON, async || {
        recent(&gateway, "result=stale").await.into_iter().next()
    })
    .await;
    let way = told(&stale);
    for part in [
        "The first tier has a stale copy",
        "Upstream origin, target",
        "failed",
        "A stale copy was served: the load failed",
    ] {
        assert!(way.contains(part), "{part} in {way}");
    }
}

#[tokio::test]
async fn the_second_tier_tells_what_it_had() {
    let (origin, redis) = (
        Origin::pages(|_| Reply::fresh("x")).await,
        Redis::start().await,
    );
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\"}}, read_timeout: 30s}}}}",
        redis.url()
    );
    let gateway = asked_by_token(&origin)
        .top("cache", &l2)
        .start()
        .await
        .with_token(TOKEN);
    gateway.client().get("/page").await;
    let way = told(&record(&gateway, "/page").await);
    assert!(way.contains("The second tier had nothing"), "{way}");
    drop(redis);
}

#[tokio::test]
async fn they_need_a_token_and_are_bounded() {
    let (_origin, open) = site("{}", |_| Reply::fresh("x")).await;
    let refused = open.admin(Method::GET, "/v1/requests/recent", "").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("admin.token"), "{}", refused.text);
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let setup = Setup::new(&origin)
        .top("admin", ADMIN)
        .top("telemetry", "{access_log: off, recent_requests: {keep: 3}}");
    let gateway = setup.start().await;
    let anonymous = gateway.admin(Method::GET, "/v1/requests/recent", "").await;
    assert_eq!(anonymous.status, 401);
    let gateway = gateway.with_token(TOKEN);
    for number in 0..9 {
        gateway.client().get(&format!("/{number}")).await;
    }
    record(&gateway, "/8").await;
    let urls: Vec<String> = recent(&gateway, "")
        .await
        .iter()
        .map(|record| record["url"].to_string())
        .collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    for (url, number) in urls.iter().zip([8, 7, 6]) {
        assert!(url.contains(&format!("/{number}")), "{urls:?}");
    }
    let wrong = gateway
        .admin(Method::GET, "/v1/requests/recent?path=x", "")
        .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_them_for_people() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = started(&origin).await;
    gateway.client().get("/page").await;
    record(&gateway, "/page").await;
    let token = gateway.dir().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let (admin, token) = (
        gateway.admin.to_string(),
        token.to_str().unwrap().to_owned(),
    );
    let ran = tokio::task::spawn_blocking(move || {
        run(&[
            "requests",
            "--admin",
            &admin,
            "--token-file",
            &token,
            "--contains",
            "/page",
            "-n",
            "1",
        ])
    });
    let ran = ran.await.unwrap();
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    for part in [
        "GET http://",
        "/page",
        "200, miss",
        "leads the load",
        "1 requests",
    ] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
}

/// The same over HTTP/2, where the client resets its stream and the connection goes on, for a
/// load and for what goes past the cache.
#[tokio::test]
async fn a_stream_that_its_client_resets_is_there_too() {
    let (origin, gate) = gated().await;
    let setup = asked_by_token(&origin)
        .route("{name: passed, match: {path: /passed}, upstream: origin, cache: off}")
        .route("{name: loaded, upstream: origin}");
    let gateway = setup.start().await.with_token(TOKEN);
    for (arrived, path) in [(1, "/passed"), (2, "/loaded")] {
        let mut client = H2::open(gateway.address).await;
        client.write(get(1, path)).await;
        origin.saw(arrived).await;
        client.write(reset(1, code::CANCEL)).await;
        let left = record(&gateway, path).await;
        assert_eq!(left["result"], "left", "{left}");
        assert_eq!(left["protocol"], "h2", "{left}");
    }
    gate.open();
}

#[tokio::test]
async fn a_purge_by_its_method_is_there_too() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = started(&origin).await;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let answer = gateway.client().ask(purge, "/purged").send().await;
    let told = record(&gateway, "/purged").await;
    assert_eq!(told["method"], "PURGE");
    assert_eq!(told["status"], answer.status.as_u16());
}

/// What clients and origins send is kept in short copies, and of `Cache-Status` our own part.
#[tokio::test]
async fn long_names_are_cut_and_our_own_cache_status_is_told() {
    let origin = Origin::pages(|_| {
        Reply::fresh("x")
            .header("cache-status", "inner; hit")
            .header("content-encoding", &"x".repeat(2_000))
    })
    .await;
    let gateway = started(&origin).await;
    let path = format!("/long?{}", "a".repeat(7_000));
    gateway.client().get(&path).await;
    let long = record(&gateway, "/long").await;
    let length = |name: &str| long[name].as_str().unwrap().len();
    assert!(length("url") < 4_200, "{}", length("url"));
    assert_eq!(length("encoding"), 512);
    let told = long["cache_status"].as_str().unwrap();
    assert!(told.starts_with("lamina; fwd=uri-miss"), "{told}");
}
