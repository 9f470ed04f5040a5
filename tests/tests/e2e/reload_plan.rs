//! `lamina plan`: what another configuration would do is told before it is done, nothing changes by
//! asking, and it is true (PL1–PL3).

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use e2e::cli::{Ran, run};
use e2e::client::{Answer, Client};
use e2e::free_port::free_address;
use e2e::gateway::Gateway;
use e2e::h3::NAME;
use e2e::h3::certificates::Certificates;
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;

use crate::reload::{named, target};

/// What a client may ask for.
#[derive(Clone, Debug)]
struct PlannedRequest {
    host: &'static str,
    target: String,
    lang: Option<&'static str>,
    session: Option<&'static str>,
    /// As a proxy tells it.
    scheme: Option<&'static str>,
}

const HOSTS: [&str; 3] = ["one.example", "two.example", "other.test"];
const QUERIES: [&str; 7] = ["", "?p=1", "?q=1", "?p=1&q=2", "?q=2&p=1", "?r=3&p=1", "?"];
const MATCHES: [&str; 8] = [
    "{}",
    "{path: /a/*}",
    "{path: [/a/*, /b/*]}",
    "{path: /b/1*}",
    "{path: /?/2}",
    "{host: one.example}",
    "{host: \"*.example\", path: /c/*}",
    "{host: other.test, path: /a/*}",
];
/// Keys that contain parts of the URL alone.
const URL_KEYS: [&str; 6] = [
    "{}",
    "{query: {include: [p]}}",
    "{query: {drop: [q]}}",
    "{query: {sort: true}}",
    "{query: {drop: [\"*\"]}}",
    "{query: {drop: [r], sort: true}}",
];
/// Keys that contain more.
const OTHER_KEYS: [&str; 3] = [
    "{headers: [x-lang]}",
    "{cookies: [s]}",
    "{query: {drop: [q]}, headers: [x-lang], cookies: [s]}",
];

/// Where requests go. Each upstream has the same place in all of them: a client stays with its place,
/// and there is one client.
const TARGETS: [&str; 6] = [
    "upstream: origin",
    "upstream: origin",
    "upstream: other",
    "split: {to: [{upstream: origin, weight: 1}, {upstream: other, weight: 1}]}",
    "split: {to: [{upstream: origin, weight: 1}, {upstream: third, weight: 1}]}",
    "split: {to: [{upstream: fourth, weight: 1}, {upstream: other, weight: 1}]}",
];
/// Listeners whose clients can say that they have asked by HTTPS, those whose can not, and those that
/// send all of theirs there.
const PROXIED: (&str, &str) = ("trusted_proxies", "[127.0.0.1/32]");
const REDIRECTS: (&str, &str) = ("redirect_to_https", "on");

/// A key of the listener with its value. None: the usual one.
type ListenerKey = Option<(&'static str, &'static str)>;

/// What a configuration is made of.
#[derive(Clone, Debug)]
struct AnyConfig {
    listener: ListenerKey,
    routes: Vec<AnyRoute>,
}

fn pick<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len() as u64) as usize]
}

impl PlannedRequest {
    fn any(random: &mut Random) -> Self {
        let path = pick(random, &["a", "b", "c"]);
        let number = random.below(4);
        let query = pick(random, &QUERIES);
        Self {
            host: pick(random, &HOSTS),
            target: format!("/{path}/{number}{query}"),
            lang: pick(random, &[None, Some("de"), Some("en")]),
            session: pick(random, &[None, Some("1"), Some("2")]),
            scheme: pick(random, &[None, None, Some("https")]),
        }
    }

    async fn ask(&self, client: &Client) -> Answer {
        let mut ask = client.request(&self.target).host(self.host);
        if let Some(lang) = self.lang {
            ask = ask.header("x-lang", lang);
        }
        if let Some(session) = self.session {
            ask = ask.header("cookie", &format!("a=b; s={session}"));
        }
        if let Some(scheme) = self.scheme {
            ask = ask.header("x-forwarded-proto", scheme);
        }
        ask.send().await
    }
}

/// A route, without its name.
#[derive(Clone, Debug)]
struct AnyRoute {
    name: u64,
    yaml: String,
}

/// Whether keys may contain headers and cookies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyParts {
    Url,
    Any,
}

impl AnyRoute {
    fn any(random: &mut Random, name: u64, parts: KeyParts) -> Self {
        let with_more = parts == KeyParts::Any && random.below(2) == 0;
        let key = match with_more {
            true => pick(random, &OTHER_KEYS),
            false => pick(random, &URL_KEYS),
        };
        let wanted = pick(random, &MATCHES);
        let cache = pick(random, &["on", "on", "on", "on", "on", "off"]);
        let target = pick(random, &TARGETS);
        Self {
            name,
            yaml: format!("match: {wanted}, key: {key}, cache: {cache}, {target}"),
        }
    }
}

fn any_routes(random: &mut Random, parts: KeyParts) -> Vec<AnyRoute> {
    let mut names = [0, 1, 2, 3, 4];
    random.shuffle(&mut names);
    let count = 2 + random.below(4) as usize;
    let names = names.into_iter().take(count);
    names
        .map(|name| AnyRoute::any(random, name, parts))
        .collect()
}

/// A few changes, as operators make them.
fn changed(routes: &[AnyRoute], random: &mut Random) -> Vec<AnyRoute> {
    let mut routes = routes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(routes.len() as u64) as usize;
        match random.below(4) {
            0 => random.shuffle(&mut routes),
            1 if routes.len() > 1 => drop(routes.remove(at)),
            2 => {
                let name = 10 + random.below(1_000);
                routes.insert(at, AnyRoute::any(random, name, KeyParts::Url));
            }
            _ => routes[at] = AnyRoute::any(random, routes[at].name, KeyParts::Url),
        }
    }
    let mut seen = Vec::new();
    routes.retain(|route| {
        let is_new = !seen.contains(&route.name);
        seen.push(route.name);
        is_new
    });
    routes
}

fn setup(origin: &Origin, config: &AnyConfig) -> Setup {
    let upstreams = ["other", "third", "fourth"].into_iter();
    let setup = upstreams.fold(Setup::new(origin), |setup, name| {
        setup.upstream(name, &target(origin))
    });
    let setup = config
        .listener
        .into_iter()
        .fold(setup, |setup, (key, value)| setup.listener(key, value));
    let routes = config.routes.iter();
    routes.fold(setup, |setup, AnyRoute { name, yaml }| {
        setup.route(&format!("{{name: r{name}, {yaml}}}"))
    })
}

/// Routes that can be taken up: some are never reached, which is refused.
async fn usable(
    gateway: &Gateway,
    origin: &Origin,
    listener: ListenerKey,
    mut make: impl FnMut() -> Vec<AnyRoute>,
) -> AnyConfig {
    let file = gateway.dir().join("next.yaml");
    loop {
        let routes = make();
        let config = AnyConfig { listener, routes };
        std::fs::write(&file, setup(origin, &config).yaml()).unwrap();
        if gateway.plan(&file).await.status == 200 {
            return config;
        }
    }
}

const PAIRS: usize = 14;
const QUESTIONS: usize = 120;

#[tokio::test]
async fn the_entries_that_become_unreachable_are_those_that_are_missed() {
    let seed = Random::seed_of_this_run();
    let random = &mut Random::new(seed);
    let loads = AtomicUsize::new(0);
    // Each load has a page of its own, and some pages have one for each language.
    let origin = Origin::pages(move |seen| {
        let page = Reply::fresh(loads.fetch_add(1, Relaxed).to_string());
        match seen.path.starts_with("/b/") {
            true => page.header("vary", "x-lang"),
            false => page,
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let (mut unreachable, mut reachable) = (0, 0);
    for pair in 0..PAIRS {
        let listener = pick(random, &[None, Some(PROXIED)]);
        let make = || any_routes(random, KeyParts::Any);
        let before = usable(&gateway, &origin, listener, make).await;
        // What a key gets in addition, nobody knows of entries without it.
        let parts = [KeyParts::Url, KeyParts::Any][usize::from(pair % 4 == 3)];
        let kept = before.listener;
        let listener = pick(
            random,
            &[kept, kept, kept, None, Some(PROXIED), Some(REDIRECTS)],
        );
        let make = || match pair % 2 {
            0 => changed(&before.routes, random),
            _ => any_routes(random, parts),
        };
        let after = usable(&gateway, &origin, listener, make).await;
        let said = format!("seed {seed}, pair {pair}: from {before:#?} to {after:#?}");
        gateway.take_up(&setup(&origin, &before)).await;
        gateway.purge(serde_json::json!({"all": true})).await;
        let client = gateway.client();
        let mut stored = Vec::new();
        for _ in 0..QUESTIONS {
            let mut question = PlannedRequest::any(random);
            if before.listener.is_none() {
                question.scheme = None;
            }
            let answer = question.ask(&client).await;
            if answer.cache().stored {
                // The entry is of the URL as the origin got it: without what does not count.
                let target = origin.last().path;
                let body = answer.text().to_owned();
                stored.push((PlannedRequest { target, ..question }, body));
            }
        }
        let file = gateway.dir().join("next.yaml");
        std::fs::write(&file, setup(&origin, &after).yaml()).unwrap();
        let plan = gateway.plan(&file).await;
        assert_eq!(plan.status, 200, "{}", plan.said);
        assert_eq!(plan.entries("entries"), stored.len() as u64, "{said}");
        let applied = gateway.take_up(&setup(&origin, &after)).await;
        assert_eq!(applied["entries"], plan.said["entries"], "{said}");
        // Connections that were there know their listener's settings of before.
        let client = match after.listener == Some(REDIRECTS) {
            // A redirect is no answer of the route.
            true => gateway.client().unchecked(),
            false => gateway.client(),
        };
        let mut missed = Vec::new();
        for (question, body) in &stored {
            if question.ask(&client).await.text() != body {
                missed.push(question.clone());
            }
        }
        let (least, unknown) = (plan.entries("unreachable"), plan.entries("unknown"));
        let count = missed.len() as u64;
        let told = plan.said["entries"].to_string();
        let is_true = (least..=least + unknown).contains(&count);
        assert!(
            is_true,
            "{count} of {} missed: {told}\n{said}\n{missed:?}",
            stored.len()
        );
        if parts == KeyParts::Url {
            assert_eq!(unknown, 0, "{told}\n{said}");
        }
        let by_route = plan.said["entries"]["unreachable_by_route"].as_object();
        let by_route = by_route.unwrap().values();
        let by_route: u64 = by_route.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(by_route, least, "{told}");
        unreachable += least;
        reachable += stored.len() as u64 - count;
    }
    assert!(
        unreachable > 20 && reachable > 20,
        "seed {seed}: {unreachable}, {reachable}"
    );
}

fn plan(gateway: &Gateway, file: &Path, more: &[&str]) -> Ran {
    let admin = gateway.admin.to_string();
    let mut arguments = vec!["plan", "-c", file.to_str().unwrap(), "--against", &admin];
    arguments.extend(more);
    run(&arguments)
}

#[tokio::test]
async fn the_command_tells_what_would_change_and_its_exit_code_is_for_scripts() {
    let origin = named("page").await;
    let free = free_address();
    let shop = "{name: shop, match: {path: /shop/*}, upstream: origin}";
    let rest = "{name: rest, upstream: origin}";
    let setup = Setup::new(&origin).route(shop).route(rest);
    let gateway = setup.start().await;
    for n in 0..5 {
        gateway.client().get(&format!("/shop/{n}")).await;
        gateway.client().get(&format!("/{n}")).await;
    }
    let hash = async || {
        let scrape = gateway.scrape().await;
        let info = scrape.0.iter().find(|s| s.name == "lamina_config_info");
        info.unwrap().labels[0].1.clone()
    };
    let before = hash().await;
    let file = gateway.dir().join("next.yaml");
    let next = Setup::new(&origin)
        .upstream("new", &format!("{{targets: [\"{}\"]}}", origin.url()))
        .top(
            "listeners",
            &format!("[{{address: \"127.0.0.1:0\"}}, {{address: \"{free}\"}}]"),
        )
        .top("telemetry", "{log_format: json, log_level: debug}")
        .route("{name: added, match: {path: /added}, upstream: new}")
        .route(rest);
    std::fs::write(&file, next.yaml()).unwrap();
    let ran = plan(&gateway, &file, &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for line in [
        "It could be taken up: ",
        "- route shop\n",
        "+ route added\n",
        "+ upstream new\n",
        &format!("+ listener {free}\n"),
        "~ telemetry.log_level: \"info\" -> \"debug\"\n",
        "Of 10 stored entries, 5 become unreachable (",
        "    5 of route shop\n",
        "shop -> rest\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let json = plan(&gateway, &file, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["entries"]["unreachable"], 5);
    assert_eq!(json["applied"], false);
    assert_eq!(
        plan(&gateway, &file, &["--max-unreachable", "5"]).code,
        Some(0)
    );
    let ran = plan(&gateway, &file, &["--max-unreachable", "4"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("more than 4 stored entries"), "{ran:?}");
    // What can't be done is told with all that it would do, and neither counts nor changes anything.
    let fixed = next
        .clone()
        .top("telemetry", "{log_format: json, max_series: 500}");
    std::fs::write(&file, fixed.yaml()).unwrap();
    let ran = plan(&gateway, &file, &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for line in [
        "telemetry.max_series: this can't be changed",
        "- route shop\n",
        "Of 10 stored entries, 5 become unreachable (",
        "shop -> rest",
    ] {
        assert!(ran.stderr.contains(line), "{line}: {}", ran.stderr);
    }
    let json = plan(&gateway, &file, &["--json"]);
    assert_eq!(json.code, Some(2), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["entries"]["unreachable"], 5);
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(1));
    std::fs::write(&file, "version: 1\n").unwrap();
    assert_eq!(plan(&gateway, &file, &[]).code, Some(2));
    assert_eq!(gateway.plan(&file).await.status, 422);
    // Another folder is none of the gateway's.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("lamina.yaml");
    std::fs::write(&other, next.yaml()).unwrap();
    let inside = gateway.dir().join("link.yaml");
    std::os::unix::fs::symlink(&other, &inside).unwrap();
    for file in [&other, &inside] {
        let ran = plan(&gateway, file, &[]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("must stand in the folder"), "{ran:?}");
    }
    assert_eq!(hash().await, before);
    assert!(gateway.is_well_configured().await);
    for outcome in ["applied", "invalid", "not_live", "failed"] {
        assert_eq!(gateway.reloads(outcome).await, 0.0, "{outcome}");
    }
    assert_eq!(gateway.old_engines().await, 0.0);
    assert!(TcpStream::connect(free).is_err());
    assert!(gateway.client().get("/shop/0").await.is_hit());
}

/// The first route that matches is used: what both match is served by the other one.
#[tokio::test]
async fn routes_in_another_order_are_told_with_urls_that_change_their_route() {
    let origin = named("page").await;
    let ours = "{name: ours, match: {host: one.example}, upstream: origin}";
    let shop = "{name: shop, match: {path: /shop/*}, upstream: origin}";
    let rest = "{name: rest, upstream: origin}";
    let with = |routes: [&str; 3]| {
        let all = routes.into_iter();
        all.fold(Setup::new(&origin), |setup, route| setup.route(route))
    };
    let gateway = with([ours, shop, rest]).start().await;
    let ask = async |host: &str, target: &str| {
        let client = gateway.client();
        client.request(target).host(host).send().await
    };
    let of_both = ["/shop/1", "/shop/2"];
    for target in ["/shop/1", "/shop/2", "/page"] {
        for host in ["one.example", "two.example"] {
            ask(host, target).await;
            assert!(ask(host, target).await.is_hit(), "{host}{target}");
        }
    }
    let file = gateway.dir().join("next.yaml");
    let next = with([shop, ours, rest]);
    std::fs::write(&file, next.yaml()).unwrap();
    let said = gateway.plan(&file).await.said;
    let moved = said["changes"]["moved_routes"].as_array().unwrap();
    assert!(!moved.is_empty(), "{said}");
    assert!(moved.iter().all(|name| name == "ours" || name == "shop"));
    assert_eq!(said["entries"]["unreachable"], 2, "{said}");
    let rerouted = said["entries"]["rerouted"].as_array().unwrap();
    let mut urls: Vec<_> = rerouted
        .iter()
        .map(|one| {
            assert_eq!(
                (&one["before"], &one["after"]),
                (&"ours".into(), &"shop".into())
            );
            one["url"].as_str().unwrap()
        })
        .collect();
    urls.sort_unstable();
    assert_eq!(urls, ["one.example/shop/1", "one.example/shop/2"]);
    let ran = plan(&gateway, &file, &[]);
    for line in [
        " has another place in the order\n",
        "one.example/shop/1: ours -> shop\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    // And so it comes.
    gateway.take_up(&next).await;
    for target in of_both {
        assert!(!ask("one.example", target).await.is_hit(), "{target}");
        assert!(ask("two.example", target).await.is_hit(), "{target}");
    }
    for host in ["one.example", "two.example"] {
        assert!(ask(host, "/page").await.is_hit(), "{host}");
    }
}

#[tokio::test]
async fn entries_of_a_scheme_that_no_client_can_use_become_unreachable() {
    let origin = named("page").await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin}");
    let gateway = setup.start().await;
    for n in 0..4 {
        gateway.client().get(&format!("/{n}")).await;
    }
    let certificates = Certificates::new(&[NAME]);
    for (name, content) in certificates.files() {
        std::fs::write(gateway.dir().join(name), content).unwrap();
    }
    let secured = certificates.secure(setup.clone(), "");
    let file = gateway.dir().join("next.yaml");
    let redirects = setup.clone().listener("redirect_to_https", "on");
    let proxied = redirects
        .clone()
        .listener("trusted_proxies", "[10.0.0.0/8]");
    for (next, unreachable) in [(redirects, 4), (proxied, 0), (secured, 4)] {
        std::fs::write(&file, next.yaml()).unwrap();
        let plan = gateway.plan(&file).await;
        assert_eq!(plan.entries("entries"), 4);
        assert_eq!(plan.entries("unreachable"), unreachable, "{}", plan.said);
    }
}

#[tokio::test]
async fn a_plan_and_a_reload_need_the_right_to_the_configuration() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let (reads, configures) = ("a-token-that-reads-only", "a-token-that-configures");
    let token = |name: &str, token: &str, right: &str| {
        format!("{{name: {name}, token: {token}, can: [{right}]}}")
    };
    let all = [token("r", reads, "read"), token("c", configures, "config")];
    let admin = format!("{{address: \"127.0.0.1:0\", tokens: [{}]}}", all.join(", "));
    let gateway = Setup::new(&origin).top("admin", &admin).start().await;
    let file = gateway.dir().join("lamina.yaml");
    let gateway = gateway.with_token(reads);
    assert_eq!(gateway.plan(&file).await.status, 403);
    assert_eq!(gateway.reload().await.status, 403);
    let gateway = gateway.with_token(configures);
    assert_eq!(gateway.plan(&file).await.status, 200);
    assert_eq!(gateway.reload().await.status, 200);
    // The command finds the token that has the right.
    assert_eq!(plan(&gateway, &file, &[]).code, Some(0));
}
