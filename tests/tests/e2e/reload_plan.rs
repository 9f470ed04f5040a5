//! `lamina plan`: what another configuration would do is told before it is done, nothing changes by
//! asking, and it is true (PL1–PL3).

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use e2e::cli::{Ran, run};
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::process::free_address;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;

use crate::reload::named;

/// What a client may ask for.
#[derive(Clone, Debug)]
struct PlannedRequest {
    host: &'static str,
    target: String,
    lang: Option<&'static str>,
    session: Option<&'static str>,
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
        Self {
            name,
            yaml: format!("match: {wanted}, key: {key}, cache: {cache}, upstream: origin"),
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

fn setup(origin: &Origin, routes: &[AnyRoute]) -> Setup {
    let routes = routes.iter();
    routes.fold(Setup::new(origin), |setup, AnyRoute { name, yaml }| {
        setup.route(&format!("{{name: r{name}, {yaml}}}"))
    })
}

/// Routes that can be taken up: some are never reached, which is refused.
async fn usable(
    gateway: &Gateway,
    origin: &Origin,
    mut make: impl FnMut() -> Vec<AnyRoute>,
) -> Vec<AnyRoute> {
    let file = gateway.dir().join("next.yaml");
    loop {
        let routes = make();
        std::fs::write(&file, setup(origin, &routes).yaml()).unwrap();
        if gateway.plan(&file).await.status == 200 {
            return routes;
        }
    }
}

const PAIRS: usize = 14;
const QUESTIONS: usize = 120;

#[tokio::test]
async fn the_entries_that_become_unreachable_are_those_that_are_missed() {
    let random = &mut Random::new(0x1a31_4a17);
    let loads = AtomicUsize::new(0);
    // Each load has a page of its own.
    let origin =
        Origin::pages(move |_| Reply::fresh(loads.fetch_add(1, Relaxed).to_string())).await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let (mut unreachable, mut reachable) = (0, 0);
    for pair in 0..PAIRS {
        let make = || any_routes(random, KeyParts::Any);
        let before = usable(&gateway, &origin, make).await;
        // What a key gets in addition, nobody knows of entries without it.
        let parts = [KeyParts::Url, KeyParts::Any][usize::from(pair % 4 == 3)];
        let make = || match pair % 2 {
            0 => changed(&before, random),
            _ => any_routes(random, parts),
        };
        let after = usable(&gateway, &origin, make).await;
        let said = format!("pair {pair}: from {before:#?} to {after:#?}");
        gateway.take_up(&setup(&origin, &before)).await;
        gateway.purge(serde_json::json!({"all": true})).await;
        let mut stored = Vec::new();
        for _ in 0..QUESTIONS {
            let question = PlannedRequest::any(random);
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
        unreachable > 100 && reachable > 100,
        "{unreachable}, {reachable}"
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
    let free = free_address().unwrap();
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
    // What can't be done is told, and neither counts nor changes anything.
    let fixed = setup
        .clone()
        .top("telemetry", "{log_format: json, max_series: 500}");
    std::fs::write(&file, fixed.yaml()).unwrap();
    let ran = plan(&gateway, &file, &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("telemetry.max_series"), "{ran:?}");
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

#[tokio::test]
async fn entries_of_a_scheme_that_no_client_can_use_become_unreachable() {
    let origin = named("page").await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin}");
    let gateway = setup.start().await;
    for n in 0..4 {
        gateway.client().get(&format!("/{n}")).await;
    }
    let file = gateway.dir().join("next.yaml");
    let redirects = setup.clone().listener("redirect_to_https", "on");
    let proxied = redirects
        .clone()
        .listener("trusted_proxies", "[10.0.0.0/8]");
    for (next, unreachable) in [(redirects, 4), (proxied, 0)] {
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
