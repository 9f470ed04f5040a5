//! Which target a request goes to by its key or its client, loads that go to a second one, and how
//! many requests an upstream gets at once.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::cli::run;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::{SOON, wait_for, within};
use http::Method;

/// An upstream of these targets, which are named a, b and so on.
fn shop(targets: &[&Origin], more: &str) -> String {
    let named = ('a'..).zip(targets);
    let named: Vec<_> = named
        .map(|(name, target)| format!("{{url: \"{}\", name: {name}}}", target.url()))
        .collect();
    format!("{{targets: [{}]{more}}}", named.join(", "))
}

/// A gateway before that upstream, with a route that caches and one that does not.
async fn before(targets: &[&Origin], more: &str) -> Gateway {
    Setup::default()
        .upstream("shop", &shop(targets, more))
        .route("{name: cached, match: {path: /cached/*}, upstream: shop, key: {query: {drop: [utm]}}, policy: {ranges: parts}}")
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await
}

async fn well(name: &'static str) -> Origin {
    Origin::pages(move |_| Reply::ok(name)).await
}

// By the key

/// A page that is stale at once, with parts and an entity tag.
fn page(seen: &Seen) -> Reply {
    let reply = match (seen.header("range"), seen.header("if-none-match")) {
        ("bytes=0-3", _) => Reply::ok("page")
            .status(206)
            .header("content-range", "bytes 0-3/10"),
        (_, "\"v1\"") => Reply::status_only(304),
        _ => Reply::ok("page 12345"),
    };
    reply
        .header("etag", "\"v1\"")
        .header("cache-control", "max-age=0, stale-while-revalidate=3600")
}

/// The kind of a request, as the origin sees it.
fn kind(seen: &Seen) -> &'static str {
    match seen.method {
        Method::POST => "post",
        Method::HEAD => "head",
        _ if seen.headers.contains_key("content-length") => "with a body",
        _ if seen.headers.contains_key("range") => "part",
        _ if seen.headers.contains_key("if-none-match") => "refresh",
        _ => "load",
    }
}

const BY_KEY: &str = ", balance: {by: hash, hash: key, bound: 100}";

async fn ask_in_every_way(client: &Client, path: &str, refreshed: impl Fn() -> bool) {
    client.head(path).await;
    let part = client.request(path).header("range", "bytes=0-3").send();
    assert_eq!(part.await.text(), "page");
    assert_eq!(client.get(path).await.text(), "page 12345");
    assert_eq!(client.get(&format!("{path}?utm=mail")).await.status, 200);
    client.post(path, "order").await;
    let with_body = client.request(path).body("body").send().await;
    assert_eq!(with_body.text(), "page 12345");
    wait_for("a refresh", SOON, || async {
        client.get(path).await;
        refreshed().then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_that_is_sent_for_an_object_goes_to_one_target() {
    let origins = [
        Origin::pages(page).await,
        Origin::pages(page).await,
        Origin::pages(page).await,
    ];
    let targets: Vec<_> = origins.iter().collect();
    let gateway = before(&targets, BY_KEY).await;
    let client = gateway.client();
    let mut owners = BTreeSet::new();
    for n in 0..12 {
        let path = format!("/cached/{n}");
        let of_page = |origin: &Origin| {
            let seen = origin.seen().into_iter();
            seen.filter(|seen| seen.path_only() == path)
                .map(|seen| kind(&seen))
                .collect::<BTreeSet<_>>()
        };
        let refreshed = || {
            let mut origins = origins.iter();
            origins.any(|origin| of_page(origin).contains("refresh"))
        };
        ask_in_every_way(&client, &path, refreshed).await;
        let asked: Vec<_> = origins.iter().map(of_page).collect();
        let owner = asked.iter().position(|kinds| !kinds.is_empty()).unwrap();
        for wanted in ["post", "with a body", "part", "refresh", "load"] {
            assert!(
                asked[owner].contains(wanted),
                "{wanted} of {path}: {asked:?}"
            );
        }
        let others = asked.iter().filter(|kinds| !kinds.is_empty()).count();
        assert_eq!(others, 1, "{path}: {asked:?}");
        owners.insert(owner);
    }
    assert!(owners.len() > 1, "all went to one of three");
}

#[tokio::test]
async fn two_processes_choose_the_same_target_for_an_object() {
    let (a, b, c) = (well("a").await, well("b").await, well("c").await);
    let first = before(&[&a, &b, &c], BY_KEY).await;
    let second = before(&[&a, &b, &c], BY_KEY).await;
    let mut owners = BTreeSet::new();
    for n in 0..30 {
        for place in ["cached", "passed"] {
            let path = format!("/{place}/{n}");
            let ask =
                |gateway: &Gateway| gateway.client().request(&path).host("shop.example").send();
            let owner = ask(&first).await.text().to_owned();
            assert_eq!(ask(&second).await.text(), owner, "{path}");
            owners.insert(owner);
        }
    }
    assert_eq!(owners.len(), 3);
}

// By the client

const STICKY: &str =
    ", balance: {by: round_robin, slow_start: 0s, sticky: {cookie: stay, max_age: 1h}}";

/// The cookie that an answer sets, without its attributes.
fn cookie_of(answer: &Answer) -> Option<String> {
    let field = answer.header("set-cookie");
    let pair = field.split(';').next().unwrap();
    field.starts_with("stay=").then(|| pair.to_owned())
}

async fn with_cookie(client: &Client, path: &str, cookie: &str) -> Answer {
    client.request(path).header("cookie", cookie).send().await
}

#[tokio::test]
async fn a_client_stays_with_its_target_by_a_cookie_that_origins_never_see() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], STICKY).await;
    let client = gateway.client();
    for _ in 0..4 {
        let first = client.get("/").await;
        let cookie = cookie_of(&first).expect("a cookie");
        assert_eq!(
            first.header("set-cookie"),
            format!("{cookie}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600")
        );
        assert_eq!(first.header("cache-control"), "private");
        assert!(!cookie.contains("127"), "{cookie}");
        for _ in 0..5 {
            let sent = format!("theme=dark; {cookie}; lang=de");
            let again = with_cookie(&client, "/", &sent).await;
            assert_eq!(again.text(), first.text());
            assert!(!again.has("set-cookie"), "it knows its target");
            let target = if first.text() == "a" { &a } else { &b };
            assert_eq!(target.last().header("cookie"), "theme=dark; lang=de");
        }
    }
    assert!(a.count() > 0 && b.count() > 0);
    for forged in ["stay=0000000000000000", "stay=127.0.0.1:80", "stay="] {
        let answer = with_cookie(&client, "/", forged).await;
        assert!(cookie_of(&answer).is_some(), "{forged}: a new one");
    }
}

async fn order(gateway: &Gateway, target: &str, state: &str) {
    let path = format!("/v1/upstreams/shop/targets/{target}");
    let body = format!("{{\"state\": \"{state}\"}}");
    let answer = gateway.admin(Method::POST, &path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_drained_target_keeps_its_clients_and_one_that_is_out_does_not() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], STICKY).await;
    let client = gateway.client();
    let first = client.get("/").await;
    let (cookie, target) = (cookie_of(&first).unwrap(), first.text().to_owned());
    order(&gateway, &target, "drain").await;
    for _ in 0..5 {
        assert_eq!(with_cookie(&client, "/", &cookie).await.text(), target);
        assert_ne!(
            client.get("/").await.text(),
            target,
            "new clients go elsewhere"
        );
    }
    order(&gateway, &target, "out").await;
    let moved = with_cookie(&client, "/", &cookie).await;
    assert_ne!(moved.text(), target);
    let new = cookie_of(&moved).expect("a new cookie");
    assert_ne!(new, cookie);
    order(&gateway, &target, "ready").await;
    for _ in 0..5 {
        assert_eq!(with_cookie(&client, "/", &new).await.text(), moved.text());
    }
}

/// Who moves to another target because its own has failed stays there.
#[tokio::test]
async fn a_client_whose_target_fails_gets_the_answer_and_the_cookie_of_another() {
    let (a, b) = (well("a").await, well("b").await);
    let gateway = before(&[&a, &b], &format!("{STICKY}, retry: {{budget: 100}}")).await;
    let client = gateway.client();
    let first = client.get("/").await;
    let (cookie, sick) = match first.text() {
        "a" => (cookie_of(&first).unwrap(), &a),
        _ => (cookie_of(&first).unwrap(), &b),
    };
    sick.behave(|_| async { Reply::ok("sick").status(503) });
    let moved = with_cookie(&client, "/", &cookie).await;
    assert_eq!(moved.status, 200);
    assert_ne!(cookie_of(&moved).expect("a new cookie"), cookie);
}

#[tokio::test]
async fn no_answer_that_is_stored_or_shared_carries_the_cookie() {
    let page = |_: &Seen| Reply::fresh("page");
    let (a, b) = (Origin::pages(page).await, Origin::pages(page).await);
    let gateway = before(&[&a, &b], STICKY).await;
    let client = gateway.client();
    let loaded = client.get("/cached/1").await;
    assert!(loaded.cache().stored && !loaded.has("set-cookie"));
    let shared = client.get("/for-all").await;
    assert_eq!(
        (shared.has("set-cookie"), shared.header("cache-control")),
        (false, loaded.header("cache-control")),
        "shared caches may keep it"
    );
    a.behave(|_| async { Reply::ok("own") });
    b.behave(|_| async { Reply::ok("own") });
    let cookie = cookie_of(&client.get("/").await).unwrap();
    // What only our cookie would make a request of a user is none: it is stored by the route's rule.
    let hit = with_cookie(&client, "/cached/1", &cookie).await;
    assert!(hit.is_hit() && !hit.has("set-cookie"));
    let private = with_cookie(&client, "/cached/2", &cookie).await;
    assert!(
        !private.has("set-cookie"),
        "a route that caches only reads it"
    );
    let post = client.post("/cached/2", "x").await;
    assert!(!post.has("set-cookie"));
}

/// A lifetime of the route is not given to answers to users, who are known by their cookies.
#[tokio::test]
async fn the_cookie_makes_no_request_that_of_a_user() {
    let (a, b) = (well("page").await, well("page").await);
    let gateway = Setup::default()
        .upstream("shop", &shop(&[&a, &b], STICKY))
        .route("{name: own, match: {path: /own}, upstream: shop, cache: off}")
        .route("{name: shop, upstream: shop, policy: {ttl: 1h, cookies: private}}")
        .start()
        .await;
    let client = gateway.client();
    let cookie = cookie_of(&client.get("/own").await).unwrap();
    let user = with_cookie(&client, "/1", &format!("{cookie}; session=1")).await;
    assert!(!user.cache().stored);
    let loaded = with_cookie(&client, "/2", &cookie).await;
    assert!(loaded.cache().stored);
    assert!(client.get("/2").await.is_hit());
}

#[test]
fn what_has_no_effect_or_cannot_work_is_told_with_its_place() {
    let validated = |upstream: &str, route: &str| {
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams:\n  shop:\n    targets: [http://a, http://b]\n    {upstream}\nroutes: [{{name: shop, upstream: shop{route}}}]\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let config = write_config(dir.path(), &yaml);
        let ran = run(&["validate", "-c", config.to_str().unwrap()]);
        (ran.code, ran.output())
    };
    for (upstream, route, code, words) in [
        (
            "balance: {sticky: {cookie: stay}}",
            "",
            0,
            "6:15: upstreams.shop.balance.sticky",
        ),
        (
            "balance: {sticky: {cookie: stay}}",
            "",
            0,
            "route `shop` caches",
        ),
        (
            "balance: {sticky: {cookie: \"a b\"}}",
            ", cache: off",
            2,
            "is not a name",
        ),
        (
            "balance: {sticky: {cookie: a, max_age: 0s}}",
            ", cache: off",
            2,
            "6:44",
        ),
        (
            "retry: {hedge: {after: soon}}",
            "",
            2,
            "expected `p50` to `p99`",
        ),
        ("retry: {hedge: {after: 0s}}", "", 2, "6:28"),
        (
            "retry: {attempts: 1, hedge: {}}",
            "",
            2,
            "more attempt than `attempts` allows",
        ),
        ("load: {adaptive: {min: 0}}", "", 2, "6:28"),
        (
            "load: {max_concurrent: 4, adaptive: {}}",
            "",
            2,
            "more than max_concurrent (4)",
        ),
        (
            "balance: {by: hash, hash: keys}",
            "",
            2,
            "expected `key`, `client`",
        ),
    ] {
        let (ran, said) = validated(upstream, route);
        assert_eq!(ran, Some(code), "{upstream}: {said}");
        assert!(said.contains(words), "{upstream}: {words} in {said}");
    }
    let (code, said) = validated("balance: {sticky: {cookie: stay}}", ", cache: off");
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
}

// A second target

async fn hedges(gateway: &Gateway, outcome: &str) -> f64 {
    let labels = [("upstream", "shop"), ("outcome", outcome)];
    gateway
        .metric("lamina_upstream_hedges_total", &labels)
        .await
}

/// An origin that never answers, and tells how many of its requests have ended all the same.
async fn silent() -> (Origin, Arc<AtomicUsize>) {
    struct Ends(Arc<AtomicUsize>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let origin = Origin::start(move |_| {
        let ends = Ends(Arc::clone(&counted));
        async move {
            pending::<()>().await;
            drop(ends);
            Reply::ok("never")
        }
    });
    (origin.await, ended)
}

const HEDGED: &str = "retry: {budget: 100, hedge: {after: 30ms}}, balance: {by: round_robin}";

#[tokio::test]
async fn a_load_whose_target_is_silent_is_answered_by_a_second_one() {
    for protocol in ["http1", "http2"] {
        let ((silent, ended), quick) = (silent().await, well("quick").await);
        let more = format!(", protocol: {protocol}, {HEDGED}");
        let gateway = before(&[&silent, &quick], &more).await;
        let client = gateway.client();
        for n in 0..10 {
            let path = format!("/cached/{n}");
            let answer = within("an answer", SOON, client.get(&path)).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "quick"));
        }
        let asked = silent.count();
        assert!(asked >= 1, "round robin asks both");
        assert_eq!(hedges(&gateway, "won").await, asked as f64);
        wait_for("what has lost is cancelled", SOON, || async {
            (ended.load(Ordering::SeqCst) == asked).then_some(())
        })
        .await;
        if protocol == "http2" {
            assert!(silent.open_connections() > 0, "a stream alone was reset");
        } else {
            wait_for("its connections are closed", SOON, || async {
                (silent.open_connections() == 0).then_some(())
            })
            .await;
        }
        let line = gateway
            .logged("a request with two attempts", |line| {
                line.contains("\"attempts\":2")
            })
            .await;
        assert!(line.contains("\"target\":\"b\""), "{line}");
        assert!(!line.contains("failed_attempts"), "{line}");
        let usable = [("upstream", "shop")];
        let usable = gateway
            .metric("lamina_upstream_usable_targets", &usable)
            .await;
        assert_eq!(usable, 2.0, "who is overtaken has not failed");
    }
}

/// Both targets take this long, so that every load would be hedged that may be.
async fn unhurried(name: &'static str) -> Origin {
    Origin::start(move |_| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Reply::ok(name)
    })
    .await
}

#[tokio::test]
async fn only_loads_by_get_go_to_a_second_target() {
    let (a, b) = (unhurried("a").await, unhurried("b").await);
    let gateway = before(&[&a, &b], &format!(", {HEDGED}")).await;
    let client = gateway.client();
    client.post("/cached/1", "order").await;
    client.get("/passed").await;
    client.ask(Method::DELETE, "/cached/2").send().await;
    client.request("/cached/3").body("body").send().await;
    assert_eq!(a.count() + b.count(), 4);
    for outcome in ["won", "lost", "refused"] {
        assert_eq!(hedges(&gateway, outcome).await, 0.0, "{outcome}");
    }
    assert_eq!(client.get("/cached/4").await.status, 200);
    assert_eq!(a.count() + b.count(), 6, "a load does");
}

#[tokio::test]
async fn a_second_request_that_is_slower_loses_and_is_cancelled() {
    let (silent, ended) = silent().await;
    let first = unhurried("first").await;
    let more = ", retry: {budget: 100, hedge: {after: 10ms}}, balance: {by: round_robin}";
    let gateway = before(&[&first, &silent], more).await;
    let client = gateway.client();
    assert_eq!(client.get("/cached/1").await.text(), "first");
    // Whether the silent one was the first or the second to be asked.
    let asked = silent.count();
    assert_eq!(asked, 1);
    assert_eq!(
        hedges(&gateway, "won").await + hedges(&gateway, "lost").await,
        1.0
    );
    wait_for("what has lost is cancelled", SOON, || async {
        (ended.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_request_needs_a_budget_and_a_second_target() {
    let (a, b) = (unhurried("a").await, unhurried("b").await);
    let hedge = "hedge: {after: 10ms}";
    let none = format!(", retry: {{budget: 0, min: 0, {hedge}}}");
    let gateway = before(&[&a, &b], &none).await;
    assert_eq!(gateway.client().get("/cached/1").await.status, 200);
    assert_eq!(hedges(&gateway, "refused").await, 1.0);
    assert_eq!(a.count() + b.count(), 1);
    let alone = before(&[&a], &format!(", retry: {{budget: 100, {hedge}}}")).await;
    assert_eq!(alone.client().get("/cached/1").await.status, 200);
    assert_eq!(a.count() + b.count(), 2, "never to the same one");
    assert_eq!(hedges(&alone, "refused").await, 0.0);
}

/// `after: p95` is the time of answers that were seen: before there were any nobody is overtaken, and
/// afterwards nobody sooner than `min`.
#[tokio::test]
async fn a_measured_delay_needs_answers_and_has_a_least_time() {
    let (a, b) = (unhurried("a").await, unhurried("b").await);
    let more = |min: &str| {
        format!(
            ", retry: {{budget: 100, hedge: {{after: p95, min: {min}}}}}, balance: {{by: round_robin}}"
        )
    };
    let gateway = before(&[&a, &b], &more("1ms")).await;
    let client = gateway.client();
    assert_eq!(client.get("/cached/first").await.status, 200);
    assert_eq!(a.count() + b.count(), 1, "there was no answer before it");
    let seldom = before(&[&a, &b], &more("1h")).await;
    let load = async |path: String| {
        assert_eq!(seldom.client().get(&path).await.status, 200);
    };
    for origin in [&a, &b] {
        origin.behave(|_| async { Reply::ok("quick") });
    }
    for n in 0..8 {
        load(format!("/cached/quick/{n}")).await;
    }
    for origin in [&a, &b] {
        origin.forget();
        origin.behave(|_| async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Reply::ok("slow")
        });
    }
    for n in 0..4 {
        load(format!("/cached/slow/{n}")).await;
    }
    assert_eq!(a.count() + b.count(), 4, "an hour is longer than that");
    for outcome in ["won", "lost", "refused"] {
        assert_eq!(hedges(&gateway, outcome).await, 0.0, "{outcome}");
        assert_eq!(hedges(&seldom, outcome).await, 0.0, "{outcome}");
    }
    // From now on one of them is silent.
    a.behave(|_| pending());
    a.forget();
    for n in 0..4 {
        let path = format!("/cached/later/{n}");
        let answer = within("an answer", SOON, client.get(&path)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "slow"));
    }
    let asked = a.count();
    assert!(asked >= 1, "round robin asks both");
    let ended = hedges(&gateway, "won").await + hedges(&gateway, "lost").await;
    assert_eq!(ended, asked as f64);
}

/// A failure that comes while the second request is under way is not the answer.
#[tokio::test]
async fn the_first_good_head_is_the_answer() {
    let slow = |status: u16, millis: u64| {
        Origin::start(move |_| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Reply::ok("answer").status(status)
        })
    };
    let (sick, good) = (slow(503, 100).await, slow(200, 300).await);
    let gateway = before(&[&sick, &good], &format!(", {HEDGED}")).await;
    let client = gateway.client();
    for n in 0..4 {
        let answer = client.get(&format!("/cached/{n}")).await;
        assert_eq!(answer.status, 200);
    }
    assert!(sick.count() >= 2);
}

/// Also a failure that is no reason to send a request again: without the second request the client
/// would have got the answer of the first.
#[tokio::test]
async fn a_failure_of_the_second_target_is_not_the_answer_while_the_first_may_answer() {
    for status in [500, 429] {
        let slow = Origin::start(move |_| async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Reply::ok("page")
        })
        .await;
        let sick = Origin::pages(move |_| Reply::ok("sick").status(status)).await;
        let gateway = before(&[&slow, &sick], &format!(", {HEDGED}")).await;
        let client = gateway.client();
        for n in 0..8 {
            let (before, asked) = (slow.count(), sick.count());
            let answer = client.get(&format!("/cached/{n}")).await;
            let (began_slow, hedged) = (slow.count() > before, sick.count() > asked);
            if began_slow && hedged {
                assert_eq!(answer.text(), "page", "{status}");
            }
        }
        assert!(slow.count() >= 2 && sick.count() >= 4, "some were hedged");
    }
}

// How many at once

/// An origin that answers none of its requests for a while when it has more than so many.
async fn with_capacity(capacity: usize) -> Origin {
    struct AtOnce(Arc<AtomicUsize>);
    impl Drop for AtOnce {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let under_way = Arc::new(AtomicUsize::new(0));
    Origin::start(move |_| {
        under_way.fetch_add(1, Ordering::SeqCst);
        let counted = AtOnce(Arc::clone(&under_way));
        async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if counted.0.load(Ordering::SeqCst) <= capacity {
                    break;
                }
            }
            drop(counted);
            Reply::ok("page").header("cache-control", "max-age=0, stale-if-error=3600")
        }
    })
    .await
}

#[tokio::test]
async fn the_limit_settles_where_the_origin_gets_slow_and_what_is_above_waits_or_is_refused() {
    const CAPACITY: usize = 12;
    let origin = with_capacity(CAPACITY).await;
    let load =
        ", load: {max_concurrent: 200, adaptive: {min: 4}, max_queued: 8, queue_timeout: 10s}";
    let gateway = Arc::new(before(&[&origin], load).await);
    let limit = async || {
        let labels = [("upstream", "shop")];
        let gauge = "lamina_upstream_concurrency_limit";
        gateway.metric(gauge, &labels).await as usize
    };
    assert_eq!(limit().await, 4);
    assert_eq!(gateway.client().get("/cached/stale").await.status, 200);
    let ends = Arc::new(AtomicBool::new(false));
    let clients = (0..40).map(|_| {
        let (client, ends) = (gateway.client(), Arc::clone(&ends));
        tokio::spawn(async move {
            let mut refused = 0;
            while !ends.load(Ordering::SeqCst) {
                let answer = client.get("/").await;
                match answer.status.as_u16() {
                    200 => {}
                    503 => {
                        let why = answer.header("proxy-status").to_owned();
                        assert!(why.contains("connection_limit_reached"), "{why}");
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            refused
        })
    });
    let clients: Vec<_> = clients.collect();
    wait_for("it grows beyond what the origin can take", SOON, || async {
        (limit().await > CAPACITY).then_some(())
    })
    .await;
    for _ in 0..3 {
        wait_for("it sinks", SOON, || async {
            (limit().await <= CAPACITY).then_some(())
        })
        .await;
        wait_for("and grows again", SOON, || async {
            let limit = limit().await;
            assert!(limit <= CAPACITY + 4, "{limit}");
            (limit >= CAPACITY - 2).then_some(())
        })
        .await;
    }
    let client = gateway.client();
    wait_for("a stale copy where there is no place", SOON, || async {
        let answer = client.get("/cached/stale").await;
        assert_eq!(answer.status, 200);
        answer.is_hit().then_some(())
    })
    .await;
    ends.store(true, Ordering::SeqCst);
    let mut refused = 0;
    for client in clients {
        refused += client.await.unwrap();
    }
    assert!(refused > 0, "some find the queue full");
}
