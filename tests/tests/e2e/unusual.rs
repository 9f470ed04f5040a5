//! One client's unusual request, and the page that everybody else gets: what is refused to
//! one is neither stored nor removed for others, and a refresh asks plainly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::client::Answer;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::{SOON, wait_for};

use crate::l2::reads_below;

/// Statuses that are about the request that was made.
const REQUESTERS: [u16; 24] = [
    400, 401, 402, 403, 405, 406, 407, 408, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426,
    428, 429, 431, 451, 499,
];

/// Fields that an origin sends with such an answer.
const FIELDS: [(&str, &str); 5] = [
    ("cache-control", "no-store"),
    ("cache-control", "private"),
    ("cache-control", "max-age=3600"),
    ("set-cookie", "challenge=1"),
    ("x-nothing", "said"),
];

/// A page that is stale when it comes, and stands in for errors for a day.
fn stale_page() -> Reply {
    Reply::ok("page")
        .header("cache-control", "max-age=60, stale-if-error=86400")
        .header("age", "100")
        .header("etag", "\"a\"")
}

/// What the origin makes of a request with `x-odd: status,index of a field`.
fn odd(seen: &Seen) -> Option<Reply> {
    let (status, field) = seen.header("x-odd").split_once(',')?;
    let (name, value) = FIELDS[field.parse::<usize>().unwrap()];
    Some(
        Reply::ok("for you")
            .status(status.parse().unwrap())
            .header(name, value),
    )
}

fn page_or_odd(seen: &Seen) -> Reply {
    odd(seen).unwrap_or_else(stale_page)
}

async fn attack(gateway: &Gateway, path: &str, status: u16, field: usize) -> Answer {
    let ask = gateway.client().request(path);
    ask.header("x-odd", &format!("{status},{field}"))
        .send()
        .await
}

#[tokio::test]
async fn what_concerns_one_requester_takes_no_page_from_others() {
    let (mut origin, gateway) = site("{}", page_or_odd).await;
    let redirects = [200, 302, 303, 307];
    let mut paths = Vec::new();
    for status in REQUESTERS.into_iter().chain(redirects) {
        // A redirect or a page that may be stored is an answer for everybody.
        let fields = if redirects.contains(&status) {
            0..2
        } else {
            0..FIELDS.len()
        };
        for field in fields {
            let path = format!("/{status}/{field}");
            gateway.client().get(&path).await;
            let own = attack(&gateway, &path, status, field).await;
            assert_eq!(
                (own.status.as_u16(), own.text()),
                (status, "for you"),
                "{path}"
            );
            paths.push(path);
        }
    }
    // First without the origin: asked again, it would bring a copy that was taken away.
    origin.stop().await;
    for path in &paths {
        let answer = gateway.client().get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "page"),
            "{path}"
        );
    }
    origin.start_again().await;
    for path in &paths {
        assert_eq!(gateway.client().get(path).await.text(), "page", "{path}");
    }
}

#[tokio::test]
async fn what_concerns_one_requester_is_not_stored_for_others() {
    let (_origin, gateway) = site("{ttl: 1h}", |seen| {
        odd(seen).unwrap_or_else(|| Reply::fresh("page"))
    })
    .await;
    for status in REQUESTERS {
        for field in 0..FIELDS.len() {
            let path = format!("/{status}/{field}");
            let own = attack(&gateway, &path, status, field).await;
            assert!(!own.cache().stored, "{path}: {:?}", own.cache());
            assert_eq!(gateway.client().get(&path).await.text(), "page", "{path}");
        }
    }
}

#[tokio::test]
async fn what_concerns_one_requester_is_stored_where_it_is_listed_and_takes_no_copy_away() {
    let (_origin, gateway) =
        site("{negative_cache: {ttl: 1h, statuses: [403]}}", page_or_odd).await;
    let listed = 4;
    attack(&gateway, "/cold", 403, listed).await;
    assert!(gateway.client().get("/cold").await.is_hit());
    gateway.client().get("/held").await;
    assert_eq!(attack(&gateway, "/held", 403, listed).await.status, 403);
    assert_eq!(gateway.client().get("/held").await.text(), "page");
}

/// Who asks while an odd request is answered still shares one load.
#[tokio::test]
async fn what_concerns_one_requester_marks_no_key_for_others() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            match odd(&asked.seen) {
                Some(reply) => reply,
                None => {
                    held.pass().await;
                    Reply::fresh("page")
                }
            }
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {wait_timeout: 10m, hit_for_miss: 1h}}")
        .start()
        .await;
    for status in REQUESTERS {
        attack(&gateway, "/", status, 0).await;
    }
    let client = gateway.client();
    let asking = tokio::spawn(async move { e2e::client::herd(&client, 30, "/").await });
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n >= 29.0)
        .await;
    gate.open();
    for answer in asking.await.unwrap() {
        assert_eq!(answer.unwrap().text(), "page");
    }
    assert_eq!(origin.count(), REQUESTERS.len() + 1);
}

#[tokio::test]
async fn a_refresh_asks_plainly() {
    let origin = Origin::pages(|_| {
        Reply::ok("page")
            .header("cache-control", "max-age=60")
            .header("age", "100")
            .header("etag", "\"a\"")
            .header("vary", "accept-language")
    })
    .await;
    let gateway = Setup::new(&origin)
        .route(
            "{name: site, upstream: origin, match: {header: {x-site: '*'}}, \
             key: {headers: [x-tenant], cookies: [plan]}, policy: {stale_while_revalidate: 1d}}",
        )
        .start()
        .await;
    let ask = || {
        let usual = [
            ("x-site", "a"),
            ("x-tenant", "t"),
            ("accept-language", "de"),
        ];
        let ask = gateway.client().request("/");
        usual
            .into_iter()
            .fold(ask, |ask, (name, value)| ask.header(name, value))
    };
    ask().header("cookie", "plan=gold").send().await;
    let cookies = format!("session={}; plan=gold; junk", "x".repeat(8 << 10));
    let odd = [
        ("cookie", cookies.as_str()),
        ("user-agent", "scanner/1.0"),
        ("authorization", "Basic eA=="),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"z\""),
        ("cache-control", "no-store"),
        ("expect", "nothing"),
        ("accept", "x/y"),
        ("accept-encoding", "odd"),
        ("x-odd", "1"),
        ("x-forwarded-for", "10.1.2.3"),
        ("te", "trailers"),
        ("via", "1.1 somebody"),
    ];
    let odd = odd
        .into_iter()
        .fold(ask(), |ask, (name, value)| ask.header(name, value));
    odd.send().await;
    origin.saw(2).await;
    let refresh = origin.last();
    let mut names: Vec<_> = refresh.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept-language",
            "cdn-loop",
            "cookie",
            "forwarded",
            "host",
            "if-none-match",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-site",
            "x-tenant"
        ]
    );
    for (name, value) in [
        ("cookie", "plan=gold"),
        ("if-none-match", "\"a\""),
        ("x-tenant", "t"),
        ("x-site", "a"),
        ("accept-language", "de"),
        ("via", "1.1 lamina"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(refresh.header(name), value, "{name}");
    }
}

/// Kept up, such requests cost the others nothing.
#[tokio::test]
async fn odd_requests_without_end_leave_the_page_a_hit_for_all_others() {
    let (origin, gateway) = site("{stale_while_revalidate: 1d}", |seen| {
        if seen.header("cookie").len() > 4 << 10 {
            return Reply::status_only(431);
        }
        match seen.header("user-agent") {
            "scanner" => Reply::status_only(403).header("cache-control", "no-store"),
            "bot" => Reply::ok("are you human?").header("cache-control", "no-store"),
            _ => Reply::ok("page").header("cache-control", "max-age=0"),
        }
    })
    .await;
    let client = gateway.client();
    client.get("/").await;
    let cookies = format!("c={}", "x".repeat(8 << 10));
    for round in 0..300 {
        let (name, value) = match round % 3 {
            0 => ("cookie", cookies.as_str()),
            1 => ("user-agent", "scanner"),
            _ => ("user-agent", "bot"),
        };
        let odd = client.request("/").header(name, value).send().await;
        assert_eq!(odd.text(), "page", "{name}");
        let usual = client.get("/").await;
        assert!(usual.is_hit(), "round {round}: {:?}", usual.cache());
    }
    assert!(origin.count() > 1, "it was refreshed meanwhile");
}

#[tokio::test]
async fn a_refresh_that_is_refused_keeps_the_page_and_backs_off() {
    for status in REQUESTERS {
        let (origin, gateway) = refused_refresh(status).await;
        for _ in 0..20 {
            let answer = gateway.client().get("/").await;
            assert!(answer.is_hit() && answer.text() == "page", "{status}");
        }
        assert_eq!(origin.count(), 2, "{status}: the back-off holds");
    }
}

/// A gateway whose first refresh was answered so.
async fn refused_refresh(status: u16) -> (Origin, Gateway) {
    let refuses = Arc::new(AtomicBool::new(false));
    let refused = refuses.clone();
    let origin = Origin::pages(move |_| match refused.load(Ordering::SeqCst) {
        true => Reply::status_only(status).header("cache-control", "no-store"),
        false => Reply::ok("page").header("cache-control", "max-age=0"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{backoff: {base: 1h, max: 1h}}")
        .policy("{stale_while_revalidate: 1d}")
        .start()
        .await;
    gateway.client().get("/").await;
    refuses.store(true, Ordering::SeqCst);
    assert_eq!(gateway.client().get("/").await.text(), "page");
    let failed = [("outcome", "error")];
    gateway
        .metric_until("lamina_cache_loads_total", &failed, |n| n >= 1.0)
        .await;
    (origin, gateway)
}

/// The plain request is everybody's: what it is answered is true of the page.
#[tokio::test]
async fn a_page_that_the_plain_request_finds_private_is_served_no_more() {
    let origin = Origin::pages(|_| Reply::ok("old").header("cache-control", "max-age=0")).await;
    let gateway = Setup::new(&origin)
        .policy("{stale_while_revalidate: 1d}")
        .start()
        .await;
    gateway.client().get("/").await;
    origin.behave(|_| async { Reply::ok("new").header("cache-control", "private") });
    let client = gateway.client();
    wait_for("the old page is gone", SOON, || async {
        (client.get("/").await.text() == "new").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_odd_head_request_takes_no_page_from_others() {
    for (name, value) in [
        ("content-length", "7"),
        ("etag", "\"b\""),
        ("cache-control", "no-store"),
    ] {
        let (mut origin, gateway) =
            site("{}", move |seen| match seen.headers.contains_key("x-odd") {
                true => Reply::ok("").header(name, value),
                false => stale_page(),
            })
            .await;
        let client = gateway.client();
        client.get("/").await;
        let head = client.ask(http::Method::HEAD, "/").header("x-odd", "1");
        assert_eq!(head.send().await.status, 200);
        assert_eq!(origin.count(), 2);
        origin.stop().await;
        assert_eq!(client.get("/").await.text(), "page", "{name}");
    }
}

#[tokio::test]
async fn an_odd_request_for_a_range_takes_no_parts_from_others() {
    for status in [403, 412, 416, 431] {
        let (origin, gateway) = site("{ranges: parts}", move |seen| {
            match seen.headers.contains_key("x-odd") {
                true => Reply::status_only(status).header("cache-control", "no-store"),
                false => Reply::ok("0123")
                    .status(206)
                    .header("content-range", "bytes 0-3/20")
                    .header("etag", "\"a\"")
                    .header("cache-control", "max-age=60"),
            }
        })
        .await;
        let ask = |range: &str| gateway.client().request("/").header("range", range);
        ask("bytes=0-3").send().await;
        let own = ask("bytes=2-5").header("x-odd", "1").send().await;
        assert_eq!(own.status, status);
        let before = origin.count();
        let others = ask("bytes=1-2").send().await;
        assert_eq!((others.text(), origin.count()), ("12", before), "{status}");
    }
}

#[tokio::test]
async fn an_odd_request_on_one_node_takes_nothing_from_the_store_of_all() {
    let redis = Redis::start().await;
    let mut origin = Origin::pages(page_or_odd).await;
    let node = || {
        let l2 = format!(
            "{{l2: {{redis: {{url: \"{}\"}}, read_timeout: 1m, write_timeout: 1m}}}}",
            redis.url()
        );
        Setup::new(&origin).top("cache", &l2)
    };
    let one = node().start().await;
    let other = node().start().await;
    reads_below(&one).await;
    reads_below(&other).await;
    let ask = |gateway: &Gateway| gateway.client().request("/").host("site.example");
    ask(&one).send().await;
    let stored = [("outcome", "stored")];
    one.metric_until("lamina_l2_writes_total", &stored, |n| n >= 1.0)
        .await;
    for (field, status) in [403, 431, 451, 429].into_iter().enumerate() {
        let own = ask(&one)
            .header("x-odd", &format!("{status},{field}"))
            .send()
            .await;
        assert_eq!(own.status, status);
    }
    origin.stop().await;
    assert_eq!(ask(&other).send().await.text(), "page");
}
