//! Active checks: targets that fail theirs get no requests, unless nobody else is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};

/// An origin whose check can fail while its pages are well.
struct CheckedOrigin {
    origin: Origin,
    is_well: Arc<AtomicBool>,
}

impl CheckedOrigin {
    async fn start(name: &'static str) -> Self {
        let is_well = Arc::new(AtomicBool::new(true));
        let well = Arc::clone(&is_well);
        let origin = Origin::pages(move |seen| match seen.path.as_str() {
            "/healthz" if !well.load(Ordering::SeqCst) => Reply::ok("sick").status(500),
            _ => Reply::ok(name).header("cache-control", "max-age=0, stale-if-error=3600"),
        })
        .await;
        Self { origin, is_well }
    }

    async fn sick(name: &'static str) -> Self {
        let origin = Self::start(name).await;
        origin.becomes(false);
        origin
    }

    fn becomes(&self, well: bool) {
        self.is_well.store(well, Ordering::SeqCst);
    }

    fn checks(&self) -> Vec<Seen> {
        let seen = self.origin.seen().into_iter();
        seen.filter(|seen| seen.path == "/healthz").collect()
    }

    fn pages(&self) -> usize {
        self.origin.count() - self.checks().len()
    }

    fn target(&self) -> String {
        self.origin.address().to_string()
    }
}

/// A gateway whose upstream has these targets, and checks them five times a second.
async fn before(targets: &[&CheckedOrigin], more: &str) -> Gateway {
    let targets: Vec<_> = targets.iter().map(|target| target.origin.url()).collect();
    let targets = targets.join(", ");
    let check = "active: {path: /healthz, interval: 200ms, timeout: 10s, fall: 2, rise: 2}";
    let health = match more.contains("passive:") {
        true => more.replace("health: {", &format!("health: {{{check}, ")),
        false => format!("{more}, health: {{{check}}}"),
    };
    let upstream =
        format!("{{targets: [{targets}], balance: {{by: round_robin, slow_start: 0s}}{health}}}");
    Setup::default()
        .upstream("shop", &upstream)
        .route("{name: cached, match: {path: /cached/*}, upstream: shop}")
        .route("{name: other, match: {host: other.example}, upstream: shop, cache: off}")
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await
}

async fn usable(gateway: &Gateway, count: usize) {
    let upstream = [("upstream", "shop")];
    gateway
        .metric_until("lamina_upstream_usable_targets", &upstream, |usable| {
            usable == count as f64
        })
        .await;
}

async fn checks(gateway: &Gateway, target: &CheckedOrigin, outcome: &str) -> f64 {
    let target = target.target();
    let labels = [
        ("upstream", "shop"),
        ("target", &*target),
        ("outcome", outcome),
    ];
    gateway
        .metric("lamina_upstream_checks_total", &labels)
        .await
}

async fn all_answer(gateway: &Gateway, count: usize, path: &str) {
    let client = gateway.client();
    for n in 0..count {
        assert_eq!(client.get(&format!("{path}{n}")).await.status, 200);
    }
}

#[tokio::test]
async fn a_target_whose_check_fails_gets_no_requests_until_it_is_well_again() {
    for protocol in ["http1", "http2"] {
        let (a, b) = (
            CheckedOrigin::start("a").await,
            CheckedOrigin::sick("b").await,
        );
        let gateway = before(&[&a, &b], &format!(", protocol: {protocol}")).await;
        usable(&gateway, 1).await;
        let before = b.pages();
        all_answer(&gateway, 40, "/").await;
        assert_eq!(b.pages(), before, "{protocol}");
        let line = gateway
            .logged("why a target is down", |line| {
                line.contains("down by its active check")
            })
            .await;
        let target = b.target();
        assert!(
            line.contains("it answered 500") && line.contains(&target),
            "{line}"
        );
        b.becomes(true);
        usable(&gateway, 2).await;
        let client = gateway.client();
        wait_for("b answers again", SOON, || async {
            (client.get("/").await.text() == "b").then_some(())
        })
        .await;
        let back = gateway
            .logged("that it is back", |line| {
                line.contains("up again by its active check")
            })
            .await;
        assert!(back.contains(&target) && back.contains("INFO"), "{back}");
        let lines = gateway.log();
        let down = |line: &&String| line.contains("down by its active check");
        assert_eq!(lines.iter().filter(down).count(), 1, "one line a change");
    }
}

#[tokio::test]
async fn a_check_says_who_asks_and_is_no_request() {
    let a = CheckedOrigin::start("a").await;
    let gateway = before(&[&a], "").await;
    a.origin.saw(12).await;
    let seen = a.checks();
    assert!(seen.len() >= 12);
    for check in &seen {
        assert_eq!(check.header("user-agent"), "lamina-health");
        assert_eq!(check.authority, a.target());
        assert_eq!(check.method, "GET");
    }
    let lanes = std::thread::available_parallelism().unwrap().get();
    let connections = a.origin.connections();
    assert!(connections <= lanes, "over connections that are kept");
    assert!(checks(&gateway, &a, "passed").await >= 10.0);
    let scrape = gateway.scrape().await;
    let upstream = [("upstream", "shop")];
    assert_eq!(scrape.sum("lamina_upstream_requests_total", &upstream), 0.0);
}

/// Three routes and several workers lead to it, and each target has a check an interval.
#[tokio::test]
async fn a_target_is_checked_once_an_interval_by_the_process() {
    let (a, b) = (
        CheckedOrigin::start("a").await,
        CheckedOrigin::start("b").await,
    );
    let began = Instant::now();
    let _gateway = before(&[&a, &b], "").await;
    wait_for("ten checks of each", SOON, || async {
        (a.checks().len() >= 10 && b.checks().len() >= 10).then_some(())
    })
    .await;
    let most = began.elapsed().div_duration_f64(Duration::from_millis(180)) + 1.0;
    for target in [&a, &b] {
        let checks = target.checks().len() as f64;
        assert!(checks <= most, "{checks} checks, at most {most} expected");
    }
}

/// envoyproxy/envoy#10498: the first checks of ten targets are spread over the interval, and no pause
/// is like another. A tenth of the interval is what ten moments at random have in a thousand million
/// cases but one.
#[tokio::test]
async fn checks_are_spread_over_the_interval() {
    const INTERVAL: Duration = Duration::from_secs(6);
    let seen = Arc::<Mutex<Vec<Vec<Instant>>>>::new(Mutex::new(vec![Vec::new(); 10]));
    let mut origins = Vec::new();
    for n in 0..10 {
        let seen = Arc::clone(&seen);
        let origin = Origin::pages(move |_| {
            seen.lock().unwrap()[n].push(Instant::now());
            Reply::ok("well")
        });
        origins.push(origin.await);
    }
    let targets: Vec<_> = origins.iter().map(Origin::url).collect();
    let active = format!(
        "active: {{path: /healthz, interval: {}s}}",
        INTERVAL.as_secs()
    );
    let upstream = format!(
        "{{targets: [{}], health: {{{active}}}}}",
        targets.join(", ")
    );
    let _gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop}")
        .start()
        .await;
    wait_for("two checks of each", SOON, || async {
        let seen = seen.lock().unwrap();
        seen.iter().all(|times| times.len() >= 2).then_some(())
    })
    .await;
    let seen = seen.lock().unwrap();
    let first = || seen.iter().map(|times| times[0]);
    let spread = first().max().unwrap() - first().min().unwrap();
    assert!(spread >= INTERVAL / 10, "all within {spread:?}");
    let pauses = || seen.iter().map(|times| times[1] - times[0]);
    let jitter = pauses().max().unwrap() - pauses().min().unwrap();
    // Of a fifth of the interval.
    assert!(jitter >= INTERVAL / 50, "all alike but for {jitter:?}");
}

#[tokio::test]
async fn only_results_in_a_row_count() {
    let a = CheckedOrigin::start("a").await;
    let b = CheckedOrigin::start("b").await;
    b.origin.behave(|asked| async move {
        match asked.seen.path.as_str() {
            "/healthz" if asked.number % 2 == 0 => Reply::ok("sick").status(500),
            _ => Reply::ok("b"),
        }
    });
    let gateway = before(&[&a, &b], "").await;
    b.origin.saw(12).await;
    usable(&gateway, 2).await;
    assert!(checks(&gateway, &b, "status").await >= 4.0);
    assert!(checks(&gateway, &b, "passed").await >= 4.0);
    let lines = gateway.log();
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("down by its active check"))
    );
}

#[tokio::test]
async fn an_upstream_with_one_target_refuses_nobody_and_prefers_stale_copies() {
    let a = CheckedOrigin::start("a").await;
    let gateway = before(&[&a], "").await;
    let client = gateway.client();
    assert_eq!(client.get("/cached/page").await.text(), "a");
    a.becomes(false);
    usable(&gateway, 0).await;
    let pages = a.pages();
    assert_eq!(client.get("/cached/page").await.text(), "a");
    assert_eq!(a.pages(), pages, "the copy is there, so nobody is asked");
    all_answer(&gateway, 30, "/").await;
    assert_eq!(client.get("/cached/new").await.text(), "a");
    assert_eq!(a.pages(), pages + 31);
}

/// Two of three are ejected, so that fewer than half can be used: who has a copy asks nobody, and
/// everybody else goes to all of them.
#[tokio::test]
async fn where_most_targets_are_ejected_a_stale_copy_is_served_and_nobody_is_asked() {
    let page = || Reply::ok("page").header("cache-control", "max-age=0, stale-if-error=3600");
    let mut origins = Vec::new();
    for _ in 0..3 {
        origins.push(Origin::pages(move |_| page()).await);
    }
    let targets: Vec<_> = origins.iter().map(Origin::url).collect();
    let upstream = format!(
        "{{targets: [{}], balance: {{by: round_robin}}, retry: {{budget: 100}}, \
         health: {{passive: {{failures: 2, eject: 1h, max_eject: 1h, max_ejected: 90}}}}}}",
        targets.join(", ")
    );
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: cached, match: {path: /cached/*}, upstream: shop}")
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let client = gateway.client();
    assert_eq!(client.get("/cached/page").await.text(), "page");
    for sick in &origins[1..] {
        sick.behave(|_| async { Reply::ok("sick").status(503) });
    }
    wait_for("two are ejected", SOON, || async {
        client.get("/").await;
        let scrape = gateway.scrape().await;
        let usable = scrape.sum("lamina_upstream_usable_targets", &[("upstream", "shop")]);
        (usable == 1.0).then_some(())
    })
    .await;
    origins.iter().for_each(Origin::forget);
    for _ in 0..12 {
        let answer = client.get("/cached/page").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    }
    let asked = || origins.iter().map(Origin::count).collect::<Vec<_>>();
    assert_eq!(asked(), [0; 3], "the copy is there");
    for n in 0..12 {
        client.get(&format!("/cached/new/{n}")).await;
    }
    assert!(asked().iter().all(|count| *count > 0), "{:?}", asked());
}

#[tokio::test]
async fn where_all_targets_are_down_all_are_asked() {
    let (a, b) = (
        CheckedOrigin::sick("a").await,
        CheckedOrigin::sick("b").await,
    );
    let gateway = before(&[&a, &b], ", retry: {attempts: 1}").await;
    usable(&gateway, 0).await;
    all_answer(&gateway, 60, "/").await;
    assert!(
        a.pages() > 5 && b.pages() > 5,
        "{} {}",
        a.pages(),
        b.pages()
    );
    assert_eq!(a.pages() + b.pages(), 60);
}

/// `max_ejected: 25` of four targets is one, and the one that is down by its check is none.
#[tokio::test]
async fn a_failed_check_leaves_the_number_of_ejections_alone() {
    let (a, b) = (
        CheckedOrigin::start("a").await,
        CheckedOrigin::start("b").await,
    );
    let (down, failing) = (
        CheckedOrigin::sick("down").await,
        CheckedOrigin::start("f").await,
    );
    failing.origin.behave(|asked| async move {
        match asked.seen.path.as_str() {
            "/healthz" => Reply::ok("well"),
            _ => Reply::ok("sick").status(503),
        }
    });
    let passive = ", retry: {budget: 100}, health: {passive: {failures: 2, eject: 1h, max_eject: 1h, max_ejected: 25}}";
    let gateway = before(&[&a, &b, &down, &failing], passive).await;
    usable(&gateway, 3).await;
    all_answer(&gateway, 60, "/").await;
    usable(&gateway, 2).await;
    assert_eq!(failing.pages(), 2);
}

/// A target that answers nothing is down, and its check has a connection at most.
#[tokio::test]
async fn a_target_that_refuses_connections_is_down_with_the_reason() {
    let a = CheckedOrigin::start("a").await;
    let mut b = CheckedOrigin::start("b").await;
    b.origin.stop().await;
    let gateway = before(&[&a, &b], "").await;
    usable(&gateway, 1).await;
    assert!(checks(&gateway, &b, "connect").await >= 2.0);
    let line = gateway
        .logged("why a target is down", |line| {
            line.contains("down by its active check")
        })
        .await;
    assert!(line.contains("cannot connect"), "{line}");
    b.origin.start_again().await;
    usable(&gateway, 2).await;
}
