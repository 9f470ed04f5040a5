//! Thousands of routes: each request finds its own, and the metrics stay small.

use e2e::cli;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

const HOSTS: usize = 1_500;

/// A site for each of many hosts, behind rules for some paths of all of them, and before one
/// for whoever is left.
fn sites(origin: &Origin) -> Setup {
    let setup = Setup::new(origin)
        .route("{name: account, match: {path: \"/account/*\"}, upstream: origin, cache: off}")
        .route("{name: feeds, match: {path: \"*.xml\"}, upstream: origin, policy: {ttl: 1h}}");
    let setup = (0..HOSTS).fold(setup, |setup, n| {
        setup.route(&format!(
            "{{name: s{n}, match: {{host: [s{n}.example, \"*.s{n}.example\"]}}, upstream: origin, policy: {{ttl: 1h}}}}"
        ))
    });
    setup.route("{name: rest, upstream: origin, cache: off}")
}

#[tokio::test]
async fn each_of_many_hosts_has_its_route() {
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let gateway = sites(&origin).start().await;
    let mut asked = 0;
    for (host, path, route, is_stored) in [
        ("s0.example", "/", "s0", true),
        ("S700.example:8080", "/a", "s700", true),
        ("www.s1499.example", "/", "s1499", true),
        ("a.b.s3.example", "/", "s3", true),
        ("s3.example", "/account/me", "account", false),
        ("s3.example", "/feed.xml", "feeds", true),
        ("s1500.example", "/", "rest", false),
        ("xs3.example", "/", "rest", false),
    ] {
        for hit in [false, is_stored] {
            let answer = gateway.client().request(path).host(host).send().await;
            assert_eq!(answer.is_hit(), hit, "{host}{path}");
        }
        let counted = gateway
            .scrape()
            .await
            .sum("lamina_requests_total", &[("route", route)]);
        assert!(counted >= 2.0, "{host}{path} on {route}");
        asked += 2;
    }
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("lamina_requests_total", &[]), f64::from(asked));
    let series = gateway.metric("lamina_metric_series", &[]).await;
    assert!((1.0..400.0).contains(&series), "{series} series");
}

/// What finds no room is counted all the same, and the operator is told beforehand.
#[tokio::test]
async fn series_have_a_bound_and_the_rest_is_counted_as_other() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let setup = sites(&origin).top("telemetry", "{access_log: off, max_series: 180}");
    let gateway = setup.start().await;
    for n in 0..40 {
        let host = format!("s{n}.example");
        gateway.client().request("/").host(&host).send().await;
    }
    let scrape = gateway.scrape().await;
    let of = |route| scrape.sum("lamina_requests_total", &[("route", route)]);
    assert_eq!((of("s0"), of("s9"), of("s10")), (1.0, 1.0, 0.0));
    assert_eq!(of("other"), 30.0);
    let count = |name| scrape.sum(name, &[]);
    assert_eq!(count("lamina_metric_series"), 180.0);
    assert_eq!(count("lamina_metric_series_folded"), 540.0);
    assert_eq!(count("lamina_request_duration_seconds_count"), 40.0);
    let (_dir, config) = setup.write();
    let told = cli::run(&["validate", "-c", config.to_str().unwrap()]).output();
    let series = (HOSTS + 3) * 126;
    let text = format!("may make {series} series of metrics, and `telemetry.max_series` is 180");
    assert!(told.contains(&text), "{told}");
}
