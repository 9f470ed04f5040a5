//! Targets that fail while others are well: requests go elsewhere, within a budget, and nothing is
//! sent twice that must not be.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

/// A gateway with an upstream of these targets, and a route that never stores.
async fn before(targets: &[&str], more: &str) -> Gateway {
    let targets = targets.join(", ");
    Setup::default()
        .upstream("shop", &format!("{{targets: [{targets}]{more}}}"))
        .route("{name: cached, match: {path: /cached/*}, upstream: shop}")
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await
}

async fn well(name: &'static str) -> Origin {
    Origin::pages(move |_| Reply::ok(name)).await
}

/// A port that refuses connections.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The answers to so many requests, one after the other.
async fn statuses(gateway: &Gateway, count: usize, path: &str) -> Vec<u16> {
    let client = gateway.client();
    let mut statuses = Vec::new();
    for n in 0..count {
        statuses.push(client.get(&format!("{path}{n}")).await.status.as_u16());
    }
    statuses
}

fn assert_all_well(statuses: &[u16], count: usize) {
    assert_eq!(statuses, vec![200; count]);
}

#[tokio::test]
async fn a_target_that_refuses_costs_no_request() {
    let (a, b) = (well("a").await, well("b").await);
    for by in ["least_request", "round_robin"] {
        let balance = format!(", balance: {{by: {by}}}, retry: {{budget: 100}}");
        let gateway = before(&[&a.url(), &nobody().await, &b.url()], &balance).await;
        assert_all_well(&statuses(&gateway, 100, "/").await, 100);
        let answered = [
            ("upstream", "shop"),
            ("reason", "connect"),
            ("outcome", "answered"),
        ];
        let retries = gateway
            .metric("lamina_upstream_retries_total", &answered)
            .await;
        assert!((1.0..=10.0).contains(&retries), "{by}: {retries} retries");
    }
    assert!(a.count() > 20 && b.count() > 20);
}

#[tokio::test]
async fn a_target_that_hangs_is_asked_a_few_times_and_costs_no_request() {
    let (a, b) = (well("a").await, well("b").await);
    let hangs = Origin::start(|_| async { pending().await }).await;
    let more = ", timeouts: {first_byte: 1s}";
    let gateway = before(&[&a.url(), &hangs.url(), &b.url()], more).await;
    assert_all_well(&statuses(&gateway, 100, "/").await, 100);
    assert!((1..=5).contains(&hangs.count()), "{} times", hangs.count());
    let line = gateway
        .logged("a request with two attempts", |line| {
            line.contains("\"attempts\":2")
        })
        .await;
    assert!(line.contains("\"status\":200"), "{line}");
}

#[tokio::test]
async fn statuses_that_are_failures_go_elsewhere_and_eject() {
    let (a, b) = (well("a").await, well("b").await);
    for (status, on) in [(503, ""), (500, ", on: [5xx]")] {
        let sick = Origin::pages(move |_| Reply::ok("sick").status(status)).await;
        let more = format!(
            ", balance: {{by: round_robin}}, retry: {{budget: 100{on}}}, health: {{passive: {{failures: 5, eject: 1h, max_eject: 1h{on}}}}}"
        );
        let gateway = before(&[&a.url(), &sick.url(), &b.url()], &more).await;
        assert_all_well(&statuses(&gateway, 60, "/").await, 60);
        assert_eq!(sick.count(), 5, "it is ejected after five failures");
        let labels = [("upstream", "shop"), ("reason", &*status.to_string())];
        assert_eq!(
            gateway
                .metric("lamina_upstream_ejections_total", &labels)
                .await,
            1.0
        );
        let usable = [("upstream", "shop")];
        assert_eq!(
            gateway
                .metric("lamina_upstream_usable_targets", &usable)
                .await,
            2.0
        );
    }
}

/// A plain 500 is an answer of the application by default.
#[tokio::test]
async fn a_plain_500_is_passed_on_and_ejects_nobody() {
    let sick = Origin::pages(|_| Reply::ok("sick").status(500)).await;
    let other = Origin::pages(|_| Reply::ok("sick").status(500)).await;
    let gateway = before(&[&sick.url(), &other.url()], "").await;
    assert_eq!(statuses(&gateway, 20, "/").await, vec![500; 20]);
    assert_eq!(sick.count() + other.count(), 20);
    let usable = [("upstream", "shop")];
    assert_eq!(
        gateway
            .metric("lamina_upstream_usable_targets", &usable)
            .await,
        2.0
    );
}

/// U12: failures in a row. Who answers something else in between has an answer.
#[tokio::test]
async fn an_error_that_does_not_count_interrupts_a_row_of_failures() {
    let well = well("well").await;
    for between in [500, 429] {
        let count = AtomicUsize::new(0);
        let sick = Origin::pages(move |_| {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            let status = if nth % 5 == 4 { between } else { 503 };
            Reply::ok("sick").status(status)
        })
        .await;
        let more = ", balance: {by: round_robin}, retry: {attempts: 1}";
        let gateway = before(&[&well.url(), &sick.url()], more).await;
        let statuses = statuses(&gateway, 60, "/").await;
        assert_eq!(sick.count(), 30, "{between}: {statuses:?}");
    }
}

#[tokio::test]
async fn an_ejected_target_comes_back() {
    let sick = Origin::pages(|_| Reply::ok("sick").status(503)).await;
    let other = well("other").await;
    let more = ", balance: {by: round_robin, slow_start: 0s}, retry: {budget: 100}, health: {passive: {failures: 2, eject: 200ms}}";
    let gateway = before(&[&sick.url(), &other.url()], more).await;
    assert_all_well(&statuses(&gateway, 10, "/").await, 10);
    sick.behave(|_| async { Reply::ok("well") });
    let client = gateway.client();
    wait_for("the target answers again", SOON, || async {
        (client.get("/").await.text() == "well").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_only_target_is_always_asked_and_never_twice() {
    let sick = Origin::pages(|_| Reply::ok("sick").status(503)).await;
    let gateway = before(&[&sick.url()], "").await;
    assert_eq!(statuses(&gateway, 30, "/").await, vec![503; 30]);
    assert_eq!(sick.count(), 30);
}

/// A thousand requests in five seconds, or more slowly, after some that have saved up retries.
#[tokio::test]
async fn where_all_targets_fail_attempts_have_a_budget() {
    const REQUESTS: usize = 1_000;
    let (a, b) = (well("a").await, well("b").await);
    // Otherwise one of them is ejected, and there is no other one to ask.
    let more = ", health: {passive: {failures: 0}}";
    let gateway = before(&[&a.url(), &b.url()], more).await;
    assert_all_well(&statuses(&gateway, 100, "/").await, 100);
    for origin in [&a, &b] {
        origin.behave(|_| async { Reply::ok("sick").status(503) });
        origin.forget();
    }
    let client = gateway.client();
    let mut pace = interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    for n in 0..REQUESTS {
        pace.tick().await;
        assert_eq!(client.get(&format!("/{n}")).await.status, 503);
    }
    let seconds = began.elapsed().as_secs_f64().max(5.0);
    let allowed = REQUESTS as f64 * 1.2 + 3.0 * seconds;
    let attempts = (a.count() + b.count()) as f64;
    assert!(
        (REQUESTS as f64 * 1.1..=allowed).contains(&attempts),
        "{attempts} of {allowed}"
    );
}

/// A target that reads a request and then resets the connection; the requests are counted.
async fn resets() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut read = Vec::new();
                while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_zero_linger();
            });
        }
    });
    (url, count)
}

#[tokio::test]
async fn a_post_that_a_target_has_read_is_sent_once() {
    let (url, count) = resets().await;
    let other = well("other").await;
    let gateway = before(
        &[&url, &other.url()],
        ", balance: {by: round_robin}, health: {passive: {failures: 0}}",
    )
    .await;
    let client = gateway.client();
    let mut failed = 0;
    for n in 0..20 {
        let answer = client.post(&format!("/{n}"), "order").await;
        failed += usize::from(answer.status != 200);
    }
    assert_eq!(count.load(Ordering::SeqCst) + other.count(), 20);
    assert_eq!(failed, count.load(Ordering::SeqCst));
    assert_all_well(&statuses(&gateway, 20, "/get/").await, 20);
}

/// RFC 9110 §9.2.2: an operator who knows that all DELETEs may be repeated may say so.
#[tokio::test]
async fn methods_that_are_listed_are_repeated_after_a_target_has_read_them() {
    for (methods, repeated) in [("", false), (", methods: [GET, DELETE]", true)] {
        let (url, count) = resets().await;
        let other = well("other").await;
        let more = format!(
            ", balance: {{by: round_robin}}, retry: {{budget: 100{methods}}}, health: {{passive: {{failures: 0}}}}"
        );
        let gateway = before(&[&url, &other.url()], &more).await;
        let client = gateway.client();
        let mut failed = 0;
        for n in 0..20 {
            let answer = client.ask(Method::DELETE, &format!("/{n}")).send().await;
            failed += usize::from(answer.status != 200);
        }
        let lost = count.load(Ordering::SeqCst);
        assert!(lost > 0, "round robin asks both");
        let expected = match repeated {
            true => (0, 20),
            false => (lost, 20 - lost),
        };
        assert_eq!((failed, other.count()), expected, "{methods}");
        // What has a body is never repeated.
        let before = count.load(Ordering::SeqCst) + other.count();
        for n in 0..4 {
            let ask = client.ask(Method::DELETE, &format!("/with-body/{n}"));
            ask.body("order").send().await;
        }
        let sent = count.load(Ordering::SeqCst) + other.count() - before;
        assert_eq!(sent, 4, "{methods}");
    }
}

/// The connection could not be opened, so nobody has the order yet.
#[tokio::test]
async fn a_post_to_a_target_that_refuses_goes_to_another_with_its_body() {
    let other = Origin::start(|asked| async { Reply::ok(asked.read().await.body.unwrap()) }).await;
    let gateway = before(
        &[&nobody().await, &other.url()],
        ", balance: {by: round_robin}, retry: {budget: 100}",
    )
    .await;
    let client = gateway.client();
    for n in 0..10 {
        let body = format!("order {n}");
        assert_eq!(client.post("/", body.clone()).await.text(), body);
    }
}

/// 429 is passed on; after 503 another target is asked, within the budget.
#[tokio::test]
async fn a_target_that_asks_for_a_rest_gets_no_requests_meanwhile() {
    for (status, passed_on) in [(429, 1), (503, 0)] {
        let busy =
            Origin::pages(move |_| Reply::ok("busy").status(status).header("retry-after", "20"))
                .await;
        let other = well("other").await;
        let more = ", balance: {by: round_robin}, retry: {budget: 100}";
        let gateway = before(&[&busy.url(), &other.url()], more).await;
        let statuses = statuses(&gateway, 20, "/").await;
        assert_eq!(busy.count(), 1, "{status}");
        let refused = statuses.iter().filter(|seen| **seen == status).count();
        assert_eq!(refused, passed_on, "{status}");
        let usable = [("upstream", "shop")];
        assert_eq!(
            gateway
                .metric("lamina_upstream_usable_targets", &usable)
                .await,
            2.0,
            "{status}: it is not taken for a target that fails"
        );
    }
}

/// Each attempt has a time of its own, and what bounds all of them is the hard timeout of the route.
#[tokio::test]
async fn attempts_have_their_own_time_and_all_of_them_the_hard_timeout() {
    const PER_TRY: Duration = Duration::from_millis(400);
    const HARD: Duration = Duration::from_millis(1_500);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut silent = Vec::new();
    for _ in 0..8 {
        let asked = Arc::clone(&asked);
        let origin = Origin::start(move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            pending()
        });
        silent.push(origin.await);
    }
    let retry = format!(
        "retry: {{attempts: 8, budget: 100, min: 100, per_try: {}ms}}",
        PER_TRY.as_millis()
    );
    let targets: Vec<_> = silent.iter().map(Origin::url).collect();
    let upstream = format!("{{targets: [{}], {retry}}}", targets.join(", "));
    let policy = format!("policy: {{timeouts: {{hard: {}ms}}}}", HARD.as_millis());
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: long, match: {path: /long/*}, upstream: shop, cache: off}")
        .route(&format!(
            "{{name: cached, match: {{path: /cached/*}}, upstream: shop, {policy}}}"
        ))
        .route(&format!(
            "{{name: shop, upstream: shop, cache: off, {policy}}}"
        ))
        .start()
        .await;
    let client = gateway.client();
    for path in ["/page", "/cached/page"] {
        asked.store(0, Ordering::SeqCst);
        let start = Instant::now();
        assert_eq!(client.get(path).await.status, 504, "{path}");
        let (took, attempts) = (start.elapsed(), asked.load(Ordering::SeqCst));
        assert!(took >= HARD, "{path}: {took:?}");
        // Eight take 3.2 s and more; the last that may begin does so before the time is over.
        let most = HARD.as_millis().div_ceil(PER_TRY.as_millis()) as usize;
        assert!(
            (2..=most).contains(&attempts),
            "{path}: {attempts} attempts"
        );
        // The other route has time for all of them: nobody else asks meanwhile.
        asked.store(0, Ordering::SeqCst);
    }
    assert_eq!(client.get("/long/page").await.status, 504);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        8,
        "nothing of the requests before went on"
    );
}

/// linkerd/linkerd2#15374: what is refused at once must not make the target look quick.
#[tokio::test]
async fn a_target_that_refuses_at_once_by_429_attracts_nobody() {
    let unhurried = |name: &'static str| {
        Origin::start(move |_| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Reply::ok(name)
        })
    };
    let (a, b) = (unhurried("a").await, unhurried("b").await);
    let full = Origin::pages(|_| Reply::ok("full").status(429)).await;
    let gateway = before(&[&a.url(), &full.url(), &b.url()], "").await;
    let statuses = statuses(&gateway, 60, "/").await;
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused <= 5, "{refused} of 60 were refused");
    assert_eq!(
        full.count(),
        refused,
        "429 is an answer, and no reason to ask another target"
    );
}

/// A stale copy is better than a second attempt.
#[tokio::test]
async fn with_a_stale_copy_nobody_else_is_asked() {
    let page = || Reply::ok("page").header("cache-control", "max-age=0, stale-if-error=3600");
    let (a, b) = (
        Origin::pages(move |_| page()).await,
        Origin::pages(move |_| page()).await,
    );
    let gateway = before(&[&a.url(), &b.url()], "").await;
    let client = gateway.client();
    assert_eq!(client.get("/cached/page").await.text(), "page");
    for origin in [&a, &b] {
        origin.forget();
        origin.behave(|_| async { Reply::ok("sick").status(503) });
    }
    let answer = client.get("/cached/page").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    assert_eq!(a.count() + b.count(), 1);
}

#[tokio::test]
async fn requests_stay_with_the_target_that_their_header_chooses() {
    let (a, b) = (well("a").await, well("b").await);
    for (hash, name, value) in [
        ("header x-user", "x-user", ""),
        ("cookie session", "cookie", "other=1; session="),
    ] {
        let balance = format!(", balance: {{by: hash, hash: {hash}}}");
        let gateway = before(&[&a.url(), &b.url()], &balance).await;
        let client = gateway.client();
        let mut owners = Vec::new();
        for user in 0..20 {
            let ask = || {
                client
                    .request("/")
                    .header(name, &format!("{value}{user}"))
                    .send()
            };
            let first = ask().await.text().to_owned();
            for _ in 0..3 {
                assert_eq!(ask().await.text(), first, "user {user}");
            }
            owners.push(first);
        }
        assert!(owners.contains(&"a".to_owned()) && owners.contains(&"b".to_owned()));
    }
}

/// An origin that closes a kept connection when the next request is already on its way.
#[tokio::test]
async fn a_get_on_a_connection_that_was_closed_meanwhile_is_sent_again_and_a_post_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                for nth in 0..2 {
                    let mut read = Vec::new();
                    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    if nth == 0 {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    let gateway = Setup::default()
        .top("server", "{threads: 1, drain_timeout: 1m}")
        .upstream("shop", &format!("\"{url}\""))
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let client = gateway.client();
    let saw = || seen.load(Ordering::SeqCst);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(
        (client.get("/").await.status.as_u16(), saw()),
        (200, 3),
        "lost once, then on a new one"
    );
    let lost = within("a POST", SOON, client.post("/", "order")).await;
    assert_eq!(
        (lost.status.as_u16(), saw()),
        (502, 4),
        "it may have been processed"
    );
    assert_eq!(
        lost.header("proxy-status").split("error=").nth(1),
        Some("connection_terminated")
    );
}

/// The classes of `priority` bound who gets requests, not who is asked after a failure.
#[tokio::test]
async fn a_standby_answers_what_the_only_target_before_it_fails() {
    let hangs = Origin::start(|_| async { pending().await }).await;
    let sick = Origin::pages(|_| Reply::ok("sick").status(503)).await;
    for primary in [nobody().await, hangs.url(), sick.url()] {
        let standby = well("standby").await;
        let targets = [
            format!("\"{primary}\""),
            format!("{{url: \"{}\", priority: 1}}", standby.url()),
        ];
        let targets = targets.each_ref().map(|target| &**target);
        let gateway = before(&targets, ", timeouts: {first_byte: 2s}").await;
        assert_all_well(&statuses(&gateway, 12, "/").await, 12);
        let line = gateway
            .logged("a request with two attempts", |line| {
                line.contains("\"attempts\":2")
            })
            .await;
        assert!(line.contains(&standby.address().to_string()), "{line}");
    }
}

#[tokio::test]
async fn a_post_that_cannot_be_sent_goes_to_the_standby_and_one_that_was_read_does_not() {
    let standby = well("standby").await;
    let (reads, read) = resets().await;
    let after = format!("{{url: \"{}\", priority: 1}}", standby.url());
    for (primary, expected) in [(nobody().await, 200), (reads, 502)] {
        let gateway = before(&[&format!("\"{primary}\""), &after], "").await;
        let posted = gateway.client().post("/order", "one").await;
        assert_eq!(posted.status, expected, "{primary}");
    }
    assert_eq!((standby.count(), read.load(Ordering::SeqCst)), (1, 1));
}

/// While all targets of the first class have asked for a rest, those of the next one are asked.
#[tokio::test]
async fn a_class_whose_targets_all_rest_gives_its_requests_to_the_next_one() {
    let resting = Origin::pages(|_| Reply::ok("busy").status(429).header("retry-after", "30"));
    let (resting, standby) = (resting.await, well("standby").await);
    let targets = [
        format!("\"{}\"", resting.url()),
        format!("{{url: \"{}\", priority: 1}}", standby.url()),
    ];
    let targets = targets.each_ref().map(|target| &**target);
    let gateway = before(&targets, ", balance: {by: round_robin}").await;
    let answered = statuses(&gateway, 20, "/").await;
    assert_eq!(answered[0], 429);
    assert_all_well(&answered[1..], 19);
    assert_eq!(resting.count(), 1, "it has asked for a rest");
}

/// Another target has asked for a rest, which is better than the one that has just failed.
#[tokio::test]
async fn a_target_that_rests_answers_what_the_others_fail() {
    let rests = Origin::pages(|_| Reply::ok("busy").status(429).header("retry-after", "30")).await;
    let more = ", balance: {by: round_robin}, retry: {budget: 100}";
    let gateway = before(&[&rests.url(), &nobody().await], more).await;
    let client = gateway.client();
    wait_for("it has asked for a rest", SOON, || async {
        client.get("/").await;
        (rests.count() > 0).then_some(())
    })
    .await;
    rests.behave(|_| async { Reply::ok("well") });
    assert_all_well(&statuses(&gateway, 10, "/").await, 10);
}

/// An origin that answers a request before it has read its body, and closes the connection.
async fn hasty() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer =
                    "HTTP/1.1 413 Too large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly";
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    url
}

/// Who writes to an origin that has closed the connection learns that before it has read the answer.
#[tokio::test]
async fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on() {
    let gateway = before(&[&hasty().await], "").await;
    for n in 0..40 {
        let upload = vec![b'u'; 50_000 << (n % 5)];
        let mut raw = gateway.raw().await;
        let head = format!(
            "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            upload.len()
        );
        raw.write(head).await;
        // The gateway may close before it has read all of it, too.
        raw.try_write(&upload).await;
        let answer = within("an answer", SOON, raw.head()).await;
        assert_eq!(answer.status, 413, "{n}");
    }
}
