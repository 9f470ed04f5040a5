//! Loaders that fetch what they should not: an upstream that is not granted, an address, a
//! name that leads to one, where a redirect leads, or for ever. The plugin gets an error,
//! nothing leaves the gateway, and log and metric say so. For `wasi:http`, whose URLs hold
//! hosts, see `plugin_wasi`.

use e2e::gateway::Gateway;
use e2e::guest::wrong::{self, fetch};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// A route whose loader may fetch from `shop`, which is the origin; so is `origin`.
async fn fetching(guest: Vec<u8>, limits: &str) -> (Origin, Gateway) {
    let origin = Origin::start(|asked| async move {
        match asked.seen.path_only() {
            "/away" => {
                Reply::status_only(302).header("location", "http://169.254.169.254/meta-data")
            }
            "/hang" => std::future::pending().await,
            _ => Reply::ok(format!(
                "{} at {}",
                asked.seen.path,
                asked.seen.header("host")
            )),
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .upstream("shop", &format!("{{targets: [\"{}\"]}}", origin.url()))
        .file("bad.wasm", guest)
        .top(
            "plugins",
            &format!("{{p: {{file: bad.wasm, fetch: [shop], quarantine: {{failures: 0}}, limits: {{{limits}}}}}}}"),
        )
        .route("{name: plain, match: {path: /plain}, upstream: origin}")
        .route("{name: site, upstream: origin, loader: {plugin: p}}")
        .start()
        .await;
    (origin, gateway)
}

const PATIENT: &str = "load_timeout: 10m";

async fn denied(gateway: &Gateway) -> f64 {
    let labels = [("plugin", "p")];
    gateway
        .metric("lamina_plugin_denied_fetches_total", &labels)
        .await
}

#[tokio::test]
async fn what_is_not_granted_is_denied_told_and_counted_whatever_it_is_called() {
    let (origin, gateway) = fetching(fetch::of_any_host(), PATIENT).await;
    let client = gateway.client();
    let granted = client.request("/a").host("shop").send().await;
    assert_eq!(granted.status, 200, "what is granted is fetched");
    let port = origin.address().port();
    let others = [
        "169.254.169.254".to_owned(),
        "[fe80::1]".to_owned(),
        // It is there, and not this plugin's.
        "origin".to_owned(),
        // Names and addresses that lead to the very server which is granted as `shop`.
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        "shop.".to_owned(),
        "shop:80".to_owned(),
    ];
    let mut refused = 0.0;
    for (n, host) in others.iter().enumerate() {
        let answer = client.request(&format!("/{n}")).host(host).send().await;
        let expected = match host.as_str() {
            // One name in three spellings: the scheme's own port is none, nor is the last dot.
            "shop:80" | "shop." => 200,
            _ => fetch::DENIED,
        };
        assert_eq!(answer.status, expected, "{host}");
        refused += if expected == 200 { 0.0 } else { 1.0 };
        assert_eq!(denied(&gateway).await, refused, "{host}");
    }
    assert_eq!(origin.count(), 3, "nothing else went out");
    gateway
        .logged("the refusal", |line| {
            line.contains("169.254.169.254")
                && line.contains("not granted")
                && line.contains("\"p\"")
        })
        .await;
    assert_eq!(client.get("/plain").await.status, 200);
}

#[tokio::test]
async fn a_url_in_the_place_of_a_path_is_no_request() {
    let (origin, gateway) = fetching(fetch::of_a_url(), PATIENT).await;
    let answer = gateway.client().get("/x").await;
    assert_eq!(
        (answer.status.as_u16(), origin.count()),
        (fetch::INVALID, 0)
    );
}

#[tokio::test]
async fn a_path_that_looks_like_a_host_is_a_path() {
    let (origin, gateway) = fetching(fetch::of_any_host(), PATIENT).await;
    let ask = gateway.client().request("//169.254.169.254/x").host("shop");
    assert_eq!(ask.send().await.status, 200);
    assert_eq!(origin.last().path, "//169.254.169.254/x");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let (origin, gateway) = fetching(fetch::of_any_host(), PATIENT).await;
    let client = gateway.client().uncached();
    let answer = client.request("/away").host("shop").send().await;
    assert_eq!(answer.status, 302);
    assert_eq!(
        answer.header("location"),
        "http://169.254.169.254/meta-data"
    );
    assert_eq!((origin.count(), denied(&gateway).await), (1, 0.0));
    // A guest that follows it names an upstream that is not there.
    let answer = client
        .request("/meta-data")
        .host("169.254.169.254")
        .send()
        .await;
    assert_eq!((answer.status.as_u16(), origin.count()), (fetch::DENIED, 1));
}

#[tokio::test]
async fn a_request_that_is_passed_on_goes_to_the_routes_upstream_whatever_host_it_names() {
    let (origin, gateway) = fetching(fetch::pass_elsewhere(), PATIENT).await;
    let answer = gateway.client().get("/x").await;
    assert_eq!(answer.status, 200, "{}", gateway.log().join("\n"));
    assert_eq!((origin.count(), &*origin.last().path), (1, "/x"));
}

#[tokio::test]
async fn a_fetch_that_hangs_ends_at_its_own_time_and_at_the_calls() {
    let (_origin, gateway) = fetching(fetch::of_any_host(), PATIENT).await;
    let client = gateway.client().uncached();
    let hurried = client.request("/hang?hurry").host("shop").send().await;
    assert_eq!(
        hurried.status,
        fetch::TIMEOUT,
        "the guest had time for an answer"
    );
    let (_origin, gateway) = fetching(fetch::of_any_host(), "load_timeout: 500ms").await;
    let client = gateway.client().uncached();
    for _ in 0..3 {
        let patient = client.request("/hang").host("shop").send().await;
        let status = patient.status.as_u16();
        assert!(status == fetch::TIMEOUT || status == 504, "{status}");
        assert_eq!(client.get("/plain").await.status, 200);
    }
    assert_eq!(client.request("/a").host("shop").send().await.status, 200);
}

#[tokio::test]
async fn a_flood_of_fetches_in_one_call_sends_no_more_than_the_limit() {
    let (origin, gateway) = fetching(wrong::flood(), &format!("{PATIENT}, max_fetches: 3")).await;
    let answer = gateway.client().get("/x").await;
    assert!(
        answer.status == 200 || answer.status == 502,
        "{}",
        answer.status
    );
    assert_eq!(origin.count(), 3, "as many as the limit, and no more");
    assert_eq!(gateway.client().get("/plain").await.status, 200);
}
