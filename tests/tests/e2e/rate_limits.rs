//! Rate limits of one gateway: how many requests pass, what they count by, what a refusal says, and
//! what counts where (LM1–LM6, LM8).

use std::net::Ipv6Addr;
use std::time::Duration;

use e2e::cli::{Ran, run};
use e2e::client::{Answer, Client, herd};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pace::{admitted, paced, passed};
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;

async fn origin() -> Origin {
    Origin::pages(|seen| Reply::fresh(seen.path.clone())).await
}

/// A gateway behind a balancer, with the limit `per` on all routes.
fn limited(origin: &Origin, limit: &str) -> Setup {
    Setup::new(origin)
        .listener("trusted_proxies", "[127.0.0.0/8]")
        .top("limits", &format!("{{per: {limit}}}"))
        .route("{name: one, match: {path: /one/*}, upstream: origin, limit: [per]}")
        .route("{name: two, upstream: origin, limit: [per]}")
}

/// What a request says of its client.
type ClientFields<'a> = &'a [(&'a str, &'a str)];

/// A client of the gateway, as a balancer names it.
struct Named<'a> {
    client: Client,
    fields: ClientFields<'a>,
}

fn by<'a>(gateway: &Gateway, fields: ClientFields<'a>) -> Named<'a> {
    let client = gateway.client().uncached();
    Named { client, fields }
}

impl Named<'_> {
    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Answer {
        let ask = self.client.ask(method, path);
        let fields = self.fields.iter();
        let ask = fields.fold(ask, |ask, (name, value)| ask.header(name, value));
        ask.send().await
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status.as_u16()
    }

    /// How many of so many requests pass; each has a connection of its own.
    async fn passing(&self, path: &str, count: usize) -> usize {
        let mut passed = 0;
        for _ in 0..count {
            let apart = Named {
                client: self.client.apart(),
                fields: self.fields,
            };
            passed += usize::from(apart.status(path).await == 200);
        }
        passed
    }
}

const A: ClientFields<'static> = &[("x-forwarded-for", "192.0.2.1")];
const B: ClientFields<'static> = &[("x-forwarded-for", "192.0.2.2")];
const C: ClientFields<'static> = &[("x-forwarded-for", "192.0.2.3")];

async fn judged(gateway: &Gateway, outcome: &str) -> f64 {
    let labels = [("limit", "per"), ("outcome", outcome)];
    gateway.metric("lamina_limit_total", &labels).await
}

#[tokio::test]
async fn of_twice_the_rate_half_passes() {
    let origin = origin().await;
    let gateway = limited(&origin, "{rate: 100/s, burst: 20}").start().await;
    let client = gateway.client().uncached();
    let requests = paced(&client, "/page", 200, Duration::from_secs(5)).await;
    let (passed, expected) = (passed(&requests), admitted(&requests, 100.0, 20.0, 20.0));
    println!(
        "{passed} of {} have passed in 5 s, and {expected} should",
        requests.len()
    );
    // Three a second.
    assert!(
        passed.abs_diff(expected) <= 3 * 5,
        "{passed}, expected {expected}"
    );
    assert_eq!(judged(&gateway, "admitted").await, passed as f64);
    assert_eq!(
        judged(&gateway, "refused").await,
        (requests.len() - passed) as f64
    );
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_limit_is_one_allowance_for_all_routes_workers_and_reloads() {
    let origin = origin().await;
    let setup = limited(&origin, "{rate: 1/h, burst: 6}");
    let gateway = setup.start().await;
    let (a, b) = (by(&gateway, A), by(&gateway, B));
    let one = a.passing("/one/1", 4).await;
    assert_eq!((one, a.passing("/two", 4).await), (4, 2));
    assert_eq!(a.passing("/one/1", 4).await, 0);
    gateway
        .take_up(&setup.clone().top("defaults", "{ttl: 10s}"))
        .await;
    assert_eq!(a.passing("/two", 4).await, 0, "a reload gives nothing back");
    assert_eq!(b.passing("/two", 8).await, 6, "each client has its own");
    let more = limited(&origin, "{rate: 1/h, burst: 8}");
    gateway.take_up(&more).await;
    assert_eq!(
        a.passing("/two", 4).await,
        2,
        "only what the burst has grown by"
    );
    let other = limited(&origin, "{rate: 1/h, burst: 8, key: route}");
    gateway.take_up(&other).await;
    assert_eq!(
        a.passing("/two", 4).await,
        4,
        "what it counts by has changed"
    );
}

#[tokio::test]
async fn it_counts_by_what_the_key_says() {
    let origin = origin().await;
    let cases: [(&str, &[ClientFields], &[ClientFields]); 4] = [
        // Each list has one allowance; those of the second list have each their own.
        (
            "client",
            &[
                &[("x-forwarded-for", "2001:db8:1:2::1")],
                &[("x-forwarded-for", "2001:db8:1:2:ffff::1")],
            ],
            &[&[("x-forwarded-for", "2001:db8:1:3::1")], A, B],
        ),
        (
            "header x-api-key",
            &[&[("x-api-key", "k1"), A[0]], &[("x-api-key", "k1"), B[0]]],
            &[&[("x-api-key", "k2"), A[0]], A, B],
        ),
        (
            "cookie sid",
            &[
                &[("cookie", "sid=1"), A[0]],
                &[("cookie", "x=y; sid=1"), B[0]],
            ],
            &[&[("cookie", "sid=2"), A[0]], A, B],
        ),
        ("route", &[A, B, C], &[]),
    ];
    for (key, together, apart) in cases {
        let limit = format!("{{rate: 1/h, burst: 3, key: {key}}}");
        let gateway = limited(&origin, &limit).start().await;
        let mut passed = 0;
        for fields in together {
            passed += by(&gateway, fields).passing("/page", 3).await;
        }
        assert_eq!(passed, 3, "{key}");
        for fields in apart {
            assert_eq!(
                by(&gateway, fields).passing("/page", 4).await,
                3,
                "{key} {fields:?}"
            );
        }
    }
    let gateway = limited(&origin, "{rate: 1/h, burst: 2, key: path.2}")
        .start()
        .await;
    let a = by(&gateway, A);
    assert_eq!(a.passing("/one/x/1", 2).await, 2);
    assert_eq!(
        a.passing("/one/x/2", 2).await + by(&gateway, B).passing("/two/x", 2).await,
        0
    );
    assert_eq!(a.passing("/one/y", 3).await, 2);
}

#[tokio::test]
async fn a_refusal_is_told_in_full_and_nobody_keeps_it() {
    let origin = origin().await;
    let gateway = limited(&origin, "{rate: 2/h, burst: 1, fields: true}")
        .start()
        .await;
    let (a, b) = (by(&gateway, A), by(&gateway, B));
    let first = a.get("/page").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"per\";q=1;w=1800");
    assert_eq!(first.header("ratelimit"), "\"per\";r=0;t=1800");
    let refused = a.get("/page").await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1_700..=1_800).contains(&wait), "{wait}");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("ratelimit"), "\"per\";r=0;t=1800");
    assert_eq!(refused.text(), "429 too many requests\n");
    let hit = b.get("/page").await;
    assert!(hit.is_hit(), "the answer that is stored is the page");
    assert_eq!(hit.header("ratelimit"), "\"per\";r=0;t=1800");
    let headers = hit
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-ratelimit"));
    assert_eq!(headers.count(), 0);
    let new = by(&gateway, A).get("/other").await;
    assert_eq!(new.status, 429);
    assert_eq!(
        by(&gateway, C).status("/other").await,
        200,
        "nothing negative is stored"
    );
    gateway
        .take_up(&limited(&origin, "{rate: 2/h, burst: 1}"))
        .await;
    let untold = by(&gateway, &[("x-forwarded-for", "192.0.2.9")])
        .get("/page")
        .await;
    assert!(
        untold.is_hit() && !untold.has("ratelimit"),
        "the fields are not stored"
    );
}

#[tokio::test]
async fn a_call_is_refused_in_its_own_dialect() {
    let origin = origin().await;
    let gateway = limited(&origin, "{rate: 1/h, burst: 1}").start().await;
    let call = || {
        let client = gateway.client_http2().uncached();
        let ask = client.ask(Method::POST, "/pkg.Service/Call");
        ask.header("content-type", "application/grpc")
            .body(vec![0; 5])
            .send()
    };
    call().await;
    let refused = call().await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("grpc-status")),
        (200, "14")
    );
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_dry_run_counts_and_refuses_nobody() {
    let origin = origin().await;
    let gateway = limited(&origin, "{rate: 1/h, burst: 2, dry_run: true}")
        .start()
        .await;
    assert_eq!(by(&gateway, A).passing("/page", 5).await, 5);
    assert_eq!(judged(&gateway, "would_refuse").await, 3.0);
    assert_eq!(judged(&gateway, "admitted").await, 2.0);
    gateway
        .logged("a line about it", |line| {
            line.contains("above a rate limit, which only counts")
                && line.contains("\"limit\":\"per\"")
        })
        .await;
}

#[tokio::test]
async fn at_the_origin_loads_count_and_hits_and_followers_do_not() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |asked| {
        let at = at.clone();
        async move {
            if asked.seen.path == "/slow" {
                at.pass().await;
            }
            Reply::fresh(asked.seen.path.clone())
        }
    })
    .await;
    let gateway = limited(&origin, "{rate: 1/h, burst: 2, at: origin}")
        .start()
        .await;
    let a = by(&gateway, A);
    assert_eq!(a.passing("/1", 10).await, 10, "one load and hits");
    assert_eq!((a.status("/2").await, a.status("/3").await), (200, 429));
    assert!(
        a.get("/1").await.is_hit(),
        "what is stored is still there for it"
    );
    let refused = a.get("/3").await;
    assert_eq!(refused.header("cache-control"), "no-store");
    assert!(refused.has("retry-after"));
    assert_eq!(
        a.ask(Method::POST, "/form").await.status,
        429,
        "what bypasses the cache counts, too"
    );
    assert_eq!(a.ask(Method::HEAD, "/4").await.status, 429);
    assert_eq!(origin.count(), 2);
    // Nothing is wrong with the origin, and it was not even asked.
    let failed = [("outcome", "error")];
    assert_eq!(
        gateway.metric("lamina_cache_loads_total", &failed).await,
        0.0
    );
    let attempts = [("upstream", "origin")];
    let attempts = gateway.metric("lamina_upstream_requests_total", &attempts);
    assert_eq!(attempts.await, 2.0);
    assert_eq!(
        by(&gateway, B).status("/3").await,
        200,
        "nothing was stored of the refusal"
    );
    // Those who follow a load have not paid for it. The balancer itself is the client here.
    let plain = gateway.client().uncached();
    let asking = tokio::spawn(async move { herd(&plain, 8, "/slow").await });
    gate.reached_by(1).await;
    let loads = "lamina_limit_total";
    let admitted = [("limit", "per"), ("outcome", "admitted")];
    let before = gateway.metric(loads, &admitted).await;
    gate.open();
    let answers = asking.await.unwrap();
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status == 200)
    );
    assert_eq!(
        gateway.metric(loads, &admitted).await,
        before,
        "one load for all"
    );
    assert_eq!(origin.count_of("/slow"), 1);
}

#[tokio::test]
async fn a_herd_above_its_limit_is_refused_without_a_load() {
    let origin = origin().await;
    let gateway = limited(&origin, "{rate: 1/h, burst: 1, at: origin}")
        .start()
        .await;
    let client = gateway.client().uncached();
    assert_eq!(client.get("/first").await.status, 200);
    let answers = herd(&client, 40, "/second").await;
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status == 429)
    );
    assert_eq!(origin.count(), 1);
    let judged = judged(&gateway, "refused").await;
    assert!(
        (1.0..=200.0).contains(&judged),
        "{judged}: not each of them in each round"
    );
}

#[tokio::test]
async fn a_stale_copy_is_better_than_a_refusal() {
    let origin = Origin::pages(|_| Reply::ok("old").header("cache-control", "max-age=1")).await;
    let stale = "{name: stale, match: {path: /stale}, upstream: origin, limit: [per], policy: {stale_if_error: 1d}}";
    let setup = Setup::new(&origin)
        .listener("trusted_proxies", "[127.0.0.0/8]")
        .top("limits", "{per: {rate: 1/h, burst: 1, at: origin}}")
        .route(stale)
        .route("{name: rest, upstream: origin, limit: [per]}");
    let gateway = setup.start().await;
    let (a, b) = (by(&gateway, A), by(&gateway, B));
    assert_eq!(
        (a.status("/stale").await, b.status("/rest").await),
        (200, 200)
    );
    wait_for("the copy is stale, and served", SOON, || async {
        let answer = a.get("/stale").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "old"));
        (!answer.is_hit()).then_some(())
    })
    .await;
    wait_for("without a window it is refused", SOON, || async {
        (b.status("/rest").await == 429).then_some(())
    })
    .await;
    let (passed, refused) = (
        by(&gateway, C).status("/stale").await,
        judged(&gateway, "refused").await,
    );
    assert_eq!(passed, 200, "no pause of the load was begun");
    assert!(refused >= 2.0);
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn the_limit_is_named_where_requests_are_explained() {
    let origin = origin().await;
    let admin = "{address: \"127.0.0.1:0\", token: a-token-for-reading}";
    let setup = limited(&origin, "{rate: 10/h, burst: 1}").top("admin", admin);
    let gateway = setup.start().await.with_token("a-token-for-reading");
    let a = by(&gateway, A);
    assert_eq!(
        (a.status("/page").await, a.status("/page").await),
        (200, 429)
    );
    let recent = gateway
        .admin(Method::GET, "/v1/requests/recent", "")
        .await
        .text;
    assert!(recent.contains("The rate limit per refused it"), "{recent}");
    let line = gateway
        .logged("its line", |line| line.contains("\"status\":429"))
        .await;
    assert!(line.contains("\"limit\":\"per\""), "{line}");
    let (dir, file) = setup.write();
    let file = file.to_str().unwrap();
    let ran = run(&["explain", "http://a/page", "-c", file]);
    let words = "limit per: 10/h, burst 1, by client, of every request";
    assert!(ran.output().contains(words), "{}", ran.output());
    drop(dir);
    let other = gateway.dir().join("other.yaml");
    std::fs::write(
        &other,
        limited(&origin, "{rate: 20/h, burst: 1}")
            .top("admin", admin)
            .yaml(),
    )
    .unwrap();
    let planned = gateway.plan(&other).await;
    let changed = &planned.said["changes"]["settings"][0];
    assert_eq!(changed["key"], "limits.per.rate", "{}", planned.said);
    assert_eq!(
        (&changed["before"], &changed["after"]),
        (&"10/h".into(), &"20/h".into())
    );
}

fn validated(setup: &Setup) -> Ran {
    let (_dir, file) = setup.write();
    run(&["validate", "-c", file.to_str().unwrap()])
}

#[tokio::test]
async fn what_can_not_work_is_refused_where_it_stands_and_what_has_no_effect_is_told() {
    let origin = origin().await;
    let with = |limits: &str, named: &str| {
        let route = format!("{{name: site, upstream: origin, limit: [{named}]}}");
        Setup::new(&origin).top("limits", limits).route(&route)
    };
    let good = "{client: {rate: 100/s}}";
    for (setup, words) in [
        (
            with(good, "cliemt"),
            &["no limit is named `cliemt`", "client", "routes[0].limit[0]"][..],
        ),
        (
            with(good, "client, client"),
            &["named twice", "routes[0].limit[1]"],
        ),
        (with("{client: {rate: 100}}", "client"), &["100/s"]),
        (with("{client: {rate: 0/s}}", "client"), &["100/s"]),
        (with("{client: {}}", "client"), &["rate"]),
        (
            with("{client: {rate: 1/s, key: ip}}", "client"),
            &["header NAME"],
        ),
        (
            with("{client: {rate: 1/s, burst: 0}}", "client"),
            &["limits.client.burst"],
        ),
        (
            with("{client: {rate: 1/d, burst: 1000}}", "client"),
            &["limits.client.burst", "year"],
        ),
        (
            with("{client: {rate: 1/s, max_keys: 0}}", "client"),
            &["limits.client.max_keys"],
        ),
        (
            with("{client: {rate: 1/s, shared: true}}", "client"),
            &["limits.client.shared", "`cache.l2` has no Redis"],
        ),
    ] {
        let ran = validated(&setup);
        let told = ran.output();
        assert_eq!(ran.code, Some(2), "{told}");
        let yaml = setup.yaml();
        let lines = yaml.lines().enumerate();
        let mut lines = lines.filter(|(_, line)| line.contains("limit"));
        let is_shown = lines.any(|(n, _)| told.contains(&format!("lamina.yaml:{}:", n + 1)));
        assert!(is_shown, "{told}");
        for word in words {
            assert!(told.contains(word), "{word} in {told}");
        }
    }
    let unused = Setup::new(&origin).top("limits", good);
    let told = validated(&unused).output();
    assert!(told.contains("no route names the limit `client`"), "{told}");
    let redis = "{l2: {redis: {url: \"redis://127.0.0.1:1\"}}}";
    let lone = with("{client: {rate: 100/s, shared: true}}", "client").top("cache", redis);
    let told = validated(&lone).output();
    assert!(
        told.contains("without a `bus`") && told.contains("limits.client.shared"),
        "{told}"
    );
    let loads = "{client: {rate: 100/s, at: origin, fields: true}}";
    let route = "{name: site, upstream: origin, cache: off, limit: [client]}";
    let all_pass = Setup::new(&origin).top("limits", loads).route(route);
    let told = validated(&all_pass).output();
    assert!(told.contains("limits.client.fields"), "{told}");
    let fine = validated(&with(good, "client"));
    assert_eq!(fine.code, Some(0));
    assert!(!fine.output().contains("limit"), "{}", fine.output());
}

/// Each request is of an IPv6 network of its own.
async fn flood(mut raw: RawConnection, first: u64, count: u64) {
    const AT_ONCE: u64 = 50;
    for batch in 0..count / AT_ONCE {
        let mut bytes = String::new();
        for n in 0..AT_ONCE {
            let network =
                u128::from(first + batch * AT_ONCE + n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let client = Ipv6Addr::from((0x2000 << 112) | ((network & 0xFFFF_FFFF_FFFF) << 64) | 1);
            bytes += &format!("GET /page HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\n\r\n");
        }
        raw.write(bytes).await;
        for _ in 0..AT_ONCE {
            assert_eq!(raw.head().await.status, 200);
            raw.exactly("/page".len()).await;
        }
    }
}

#[tokio::test]
async fn a_flood_of_clients_takes_no_memory() {
    const CLIENTS: u64 = 60_000;
    let origin = origin().await;
    let setup = limited(&origin, "{rate: 1/h, burst: 1, max_keys: 10000}");
    let setup = setup.top(
        "telemetry",
        "{log_format: json, access_log: off, recent_requests: {keep: 0}}",
    );
    let gateway = setup.start().await;
    flood(gateway.raw().await, 1 << 40, 1_000).await;
    let before = gateway.resident_bytes();
    let (mut floods, share) = (Vec::new(), CLIENTS / 4);
    for n in 0..4 {
        floods.push(tokio::spawn(flood(gateway.raw().await, n * share, share)));
    }
    for flood in floods {
        flood.await.unwrap();
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    println!("{CLIENTS} clients: {} KiB more are resident", grown / 1024);
    assert!(grown < 20 << 20, "{grown} bytes");
    assert_eq!(judged(&gateway, "admitted").await, CLIENTS as f64 + 1_000.0);
}
