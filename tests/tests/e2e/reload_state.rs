//! What survives another configuration (RL5): connections, what is known of targets, plugins, what
//! is stored, and what was purged; and what is read again.

use std::time::{Duration, Instant};

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::guest::{self, wrong};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::site::{HttpsSite, NAME};
use e2e::tls_origin::{TestAuthority, TlsOrigin};
use e2e::wait::{SOON, passed, wait_for};
use http::Method;
use serde_json::{Value, json};

use crate::origin_tls;
use crate::reload::{named, target};

/// Other configurations that differ in a route that nobody asks for.
fn another(setup: &Setup, n: usize) -> Setup {
    setup
        .clone()
        .route(&format!(
            "{{name: other{n}, match: {{path: /other{n}}}, upstream: origin}}"
        ))
        .route("{name: site, upstream: origin, cache: off}")
}

async fn upstreams(gateway: &Gateway) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/upstreams", "").await;
    serde_json::from_str(&answer.text).unwrap()
}

/// What is shown of a target of the upstream `shop`.
async fn shown(gateway: &Gateway, target: &str) -> Value {
    let all = upstreams(gateway).await;
    let all = all["upstreams"].as_array().unwrap().clone();
    let shop = all
        .into_iter()
        .find(|one| one["upstream"] == "shop")
        .unwrap();
    let targets = shop["targets"].as_array().unwrap().clone();
    let found = targets.into_iter().find(|one| one["target"] == target);
    found.unwrap_or_else(|| panic!("{target} in {shop}"))
}

/// Whether a target can be used, and what its operator wants.
async fn state(gateway: &Gateway, target: &str) -> [Value; 2] {
    let shown = shown(gateway, target).await;
    ["observed", "administrative"].map(|key| shown[key].clone())
}

#[tokio::test]
async fn connections_checks_and_orders_of_an_unchanged_upstream_go_on() {
    let origin = named("page").await;
    let sick = Origin::pages(|seen| match seen.path.as_str() {
        "/healthz" => Reply::status_only(500),
        _ => Reply::ok("sick"),
    })
    .await;
    let (well, drained) = (named("well").await, named("drained").await);
    let targets = [("sick", &sick), ("well", &well), ("drained", &drained)];
    let targets: Vec<_> = targets
        .iter()
        .map(|(name, origin)| format!("{{url: \"{}\", name: {name}}}", origin.url()))
        .collect();
    let shop = format!(
        "{{targets: [{}], health: {{active: {{path: /healthz, interval: 200ms, timeout: 10s, fall: 2, rise: 2}}}}, balance: {{panic: 0}}}}",
        targets.join(", ")
    );
    let setup = Setup::new(&origin)
        .upstream("shop", &shop)
        .route("{name: shop, match: {path: /shop/*}, upstream: shop, cache: off}");
    let gateway = another(&setup, 0).start().await;
    let client = gateway.client();
    client.get("/").await;
    let order = json!({"state": "drain"}).to_string();
    let path = "/v1/upstreams/shop/targets/drained";
    let answer = gateway.admin(Method::POST, path, &order).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let before = wait_for("the sick target is found", SOON, || async {
        let state = state(&gateway, "sick").await;
        (state[0] == "down").then_some(state)
    })
    .await;
    let ordered = state(&gateway, "drained").await;
    for n in 1..=10 {
        gateway.take_up(&another(&setup, n)).await;
        assert_eq!(client.get("/").await.text(), "page");
        assert_eq!(client.get("/shop/x").await.text(), "well", "reload {n}");
        assert_eq!(state(&gateway, "sick").await, before, "reload {n}");
        assert_eq!(state(&gateway, "drained").await, ordered, "reload {n}");
    }
    assert_eq!(origin.connections(), 1);
    gateway.only_one_engine().await;
    // Five a second, were they done once; eleven configurations would make 55.
    let (start, checks) = (Instant::now(), well.count_of("/healthz"));
    passed(start, Duration::from_secs(2)).await;
    let checks = well.count_of("/healthz") - checks;
    let most = start.elapsed().as_millis() as usize / 200 + 3;
    assert!((1..=most).contains(&checks), "{checks} of at most {most}");
    // Another upstream is none of that: a target that is changed begins anew.
    let changed = setup.upstream("origin", &target(&well));
    gateway.take_up(&another(&changed, 11)).await;
    assert_eq!(client.get("/").await.text(), "well");
}

#[tokio::test]
async fn the_checks_of_a_removed_upstream_end() {
    let (origin, gone) = (named("page").await, named("gone").await);
    let health = "{active: {path: /healthz, interval: 100ms, timeout: 10s}}";
    let checked = format!("{{targets: [\"{}\"], health: {health}}}", gone.url());
    let site = "{name: site, upstream: origin}";
    let setup = Setup::new(&origin).route(site);
    let with = Setup::new(&origin)
        .upstream("gone", &checked)
        .route("{name: gone, match: {path: /gone}, upstream: gone}")
        .route(site);
    let gateway = with.start().await;
    gone.saw(3).await;
    gateway.take_up(&setup).await;
    gateway.only_one_engine().await;
    // One may be under way.
    let (start, before) = (Instant::now(), gone.count());
    passed(start, Duration::from_secs(1)).await;
    assert!(gone.count() <= before + 1);
}

fn asking(rule: &str) -> String {
    format!(
        "{{p: {{file: p.wasm, watch: false, config: {{rules: {rule}}}, on_error: {{request: refuse}}, limits: {{hook_timeout: 10s}}, quarantine: {{failures: 3, window: 1h, probe_after: 1h}}}}}}"
    )
}

const RULES: &str = "{/count: {count: true}, /trap: {trap: true}, /marked: {mark: x-mark}}";

async fn plugin(gateway: &Gateway) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/plugins", "").await;
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    all["plugins"][0].clone()
}

#[tokio::test]
async fn a_plugin_keeps_its_instances_and_its_quarantine_until_its_bytes_or_settings_change() {
    let origin = Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await;
    let with = |rules: &str, n: usize| {
        Setup::new(&origin)
            .top("server", "{threads: 1, drain_timeout: 1m}")
            .top("plugins", &asking(rules))
            .route(&format!(
                "{{name: n{n}, match: {{path: /n{n}}}, upstream: origin}}"
            ))
            .route("{name: site, upstream: origin, cache: off, request: {plugin: p}}")
    };
    let start = with(RULES, 0).file("p.wasm", guest::built("asker"));
    let gateway = start.start().await;
    let client = gateway.client();
    // The instance counts its calls.
    for n in 1..=4 {
        assert_eq!(client.get("/count").await.text(), n.to_string());
        gateway.take_up(&with(RULES, n)).await;
    }
    gateway.hang_up_until("applied").await;
    assert_eq!(client.get("/count").await.text(), "5");
    let file = gateway.dir().join("p.wasm");
    std::fs::write(&file, guest::version("asker", "two")).unwrap();
    gateway.hang_up_until("applied").await;
    assert_eq!(client.get("/marked").await.text(), "version-two");
    // A version that can't be described leaves all as it is.
    std::fs::write(&file, guest::version("asker", "bad")).unwrap();
    gateway.hang_up_until("invalid").await;
    assert_eq!(client.get("/marked").await.text(), "version-two");
    // One that fails gives way to the one before, and is not taken again.
    std::fs::write(&file, guest::version("asker", "two")).unwrap();
    let trap = async || {
        for _ in 0..3 {
            client.get("/trap").await;
        }
    };
    trap().await;
    assert_eq!(client.get("/marked").await.text(), "version-one");
    gateway.take_up(&with(RULES, 5)).await;
    assert_eq!(client.get("/marked").await.text(), "version-one");
    trap().await;
    let aside = plugin(&gateway).await["state"].clone();
    assert_ne!(aside, "serving");
    gateway.take_up(&with(RULES, 6)).await;
    assert_eq!(plugin(&gateway).await["state"], aside);
    assert_eq!(client.get("/marked").await.status, 500);
    // Other settings make it anew.
    let marked = "{/marked: {mark: x-mark}}";
    gateway.take_up(&with(marked, 5)).await;
    assert_eq!(plugin(&gateway).await["state"], "serving");
    assert_eq!(client.get("/marked").await.text(), "version-two");
    gateway.only_one_engine().await;
}

/// A plan must leave nothing behind in a plugin that goes on.
#[tokio::test]
async fn a_plan_binds_no_plugin() {
    let origin = Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await;
    let plugins = "{p: {file: p.wasm, watch: false, config: {rules: {/marked: {mark: x-mark}}}, on_error: {request: refuse}, limits: {hook_timeout: 10s}}}";
    let setup = Setup::new(&origin)
        .top("plugins", plugins)
        .file("p.wasm", guest::built("asker"));
    // No route uses it yet.
    let idle = setup
        .clone()
        .route("{name: site, upstream: origin, cache: off}");
    let used = "{name: site, upstream: origin, cache: off, request: {plugin: p}}";
    let gateway = idle.start().await;
    let plan = gateway.dir().join("plan.yaml");
    std::fs::write(&plan, setup.clone().route(used).yaml()).unwrap();
    assert_eq!(gateway.plan(&plan).await.status, 200);
    // A version without the hook that only the plan needs.
    let hookless = guest::plugin("unreachable", "unreachable", "");
    std::fs::write(gateway.dir().join("p.wasm"), hookless).unwrap();
    let path = "/v1/plugins/p/reload";
    let answer = gateway.admin(Method::POST, path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // And the plan is wrong now.
    assert_eq!(gateway.plan(&plan).await.status, 422);
    assert_eq!(gateway.client().get("/marked").await.status, 200);
}

#[tokio::test]
async fn a_plugin_fetches_from_the_new_target_of_its_upstream() {
    let (first, second) = (named("first").await, named("second").await);
    let with = |shop: &Origin| {
        Setup::new(&first)
            .upstream("shop", &target(shop))
            .top("plugins", "{p: {file: bad.wasm, fetch: [shop], quarantine: {failures: 0}, limits: {load_timeout: 10m}}}")
            .route("{name: site, upstream: origin, loader: {plugin: p}}")
    };
    let start = with(&first).file("bad.wasm", wrong::fetch::of_any_host());
    let gateway = start.start().await;
    let fetched = async |path: &str| {
        let ask = gateway.client().request(path).host("shop");
        assert_eq!(ask.send().await.status, 200);
    };
    fetched("/a").await;
    assert_eq!((first.count_of("/a"), second.count_of("/a")), (1, 0));
    gateway.take_up(&with(&second)).await;
    fetched("/b").await;
    assert_eq!((first.count_of("/b"), second.count_of("/b")), (0, 1));
    gateway.take_up(&with(&first)).await;
    fetched("/c").await;
    assert_eq!((first.count_of("/c"), second.count_of("/c")), (1, 0));
}

/// A purge before a reload hides what it hid, also what was being loaded.
#[tokio::test]
async fn purges_hold() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path == "/held" && asked.number < 3 {
                held.pass().await;
            }
            Reply::fresh(format!("page {}", asked.number))
        }
    })
    .await;
    let size = |bytes: &str| {
        let cache = format!("{{inflight: {{wait_timeout: 10m}}, l1: {{max_bytes: {bytes}}}}}");
        Setup::new(&origin).top("cache", &cache)
    };
    let gateway = size("64MiB").start().await;
    let client = gateway.client();
    client.get("/stored").await;
    client.get("/stays").await;
    let loading = client.clone();
    let loading = tokio::spawn(async move { loading.get("/held").await });
    gate.reached_by(1).await;
    let url = |path: &str| format!("http://{}{path}", gateway.address);
    gateway
        .purge(json!({"url": [url("/stored"), url("/held")]}))
        .await;
    gateway.take_up(&size("32MiB")).await;
    gate.open();
    assert_eq!(loading.await.unwrap().text(), "page 2");
    assert!(
        !client.get("/held").await.is_hit(),
        "it was purged while it was loaded"
    );
    assert!(!client.get("/stored").await.is_hit());
    assert!(client.get("/stays").await.is_hit());
    assert!(client.get("/held").await.is_hit());
    gateway.only_one_engine().await;
}

#[tokio::test]
async fn an_authority_that_was_replaced_under_its_name_is_read_again() {
    let tls = TlsOrigin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let stranger = TestAuthority::new("stranger");
    let setup = origin_tls::setup(&tls, origin_tls::TRUSTING, origin_tls::APART);
    let wrong = setup.clone().file("ca.pem", stranger.pem());
    let gateway = wrong.start().await;
    assert_eq!(gateway.client().get("/a").await.status, 502);
    gateway.write(&setup);
    gateway.hang_up_until("applied").await;
    assert_eq!(gateway.client().get("/a").await.status, 200);
    gateway.write(&wrong);
    gateway.hang_up_until("applied").await;
    assert_eq!(gateway.client().get("/b").await.status, 502);
}

async fn resumed(client: &TlsClient) -> bool {
    let connection = client.connect().await.unwrap();
    let (status, resumed) = connection.answer(NAME).await.unwrap();
    assert_eq!(status, 200);
    resumed
}

#[tokio::test]
async fn sessions_are_resumed_after_a_reload_though_limits_of_the_listener_change() {
    let mut begun = None;
    let site = HttpsSite::with(
        "",
        |setup| {
            begun = Some(setup.clone());
            setup
        },
        |_| Reply::fresh("page"),
    )
    .await;
    let setup = begun.unwrap();
    let clients = [site.client().only_tls12(), site.client().only_tls13()];
    for client in &clients {
        assert!(!resumed(client).await);
        assert!(resumed(client).await);
    }
    let route = "{name: new, upstream: origin}";
    site.gateway.take_up(&setup.clone().route(route)).await;
    for client in &clients {
        assert!(resumed(client).await, "the listener is unchanged");
    }
    let limited = setup.listener("limits", "{max_headers: 50}");
    site.gateway.take_up(&limited).await;
    for client in &clients {
        assert!(
            resumed(client).await,
            "the TLS of the listener is unchanged"
        );
    }
}
