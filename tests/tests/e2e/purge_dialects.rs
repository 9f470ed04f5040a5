//! The purge protocols of other caches, as bytes on the wire as their clients send them: the page is
//! new on two nodes over a bus, what is malformed or not listed is refused, and nothing of it reaches
//! the application.

use std::net::SocketAddr;

use e2e::fleet::{Fleet, Pages, node, purge_everywhere};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde::Deserialize;
use serde_json::json;

/// One request of the table of wire forms; `tests/data/dialects/forms.yaml` says what the keys mean.
#[derive(Deserialize)]
struct WireForm {
    dialect: String,
    #[serde(default)]
    to: Option<String>,
    who: String,
    send: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    soft: bool,
    #[serde(default)]
    means: Vec<String>,
    #[serde(default)]
    answer: serde_yaml::Value,
    #[serde(default)]
    purges: Vec<String>,
    #[serde(default)]
    refused: Option<u16>,
    #[serde(default)]
    says: String,
}

/// A raw answer.
struct RawAnswer {
    status: u16,
    text: String,
}

const HOST: &str = "shop.example";

const ALL: &str = "[url, tags, xkey, fastly, magento, symfony, varnish, drupal, acquia, \
                   api_platform, shopware, nginx, souin, refresh]";

const PAGES: [&str; 3] = ["/a", "/b", "/n/1"];

fn table() -> Vec<WireForm> {
    serde_yaml::from_str(include_str!("../../data/dialects/forms.yaml")).unwrap()
}

/// Pages whose body is their version.
async fn origin(pages: &Pages) -> Origin {
    let pages = pages.clone();
    Origin::pages(move |seen| {
        let path = seen.path_only().to_owned();
        let page = Reply::fresh(pages.version(&path).to_string());
        match path.as_str() {
            "/a" => page
                .header("content-type", "text/html; charset=utf-8")
                .header("surrogate-key", "a cat_p_5 node:1 /foo 3f2a")
                .header("x-cache-tags", ";site;pages{,6,7,};"),
            "/b" => page
                .header("content-type", "text/json")
                .header("xkey", "b, c"),
            _ => page.header("content-type", "text/plain"),
        }
    })
    .await
}

fn speaking(setup: Setup, dialects: &str) -> Setup {
    let purge = format!("{{enabled: true, allow: [127.0.0.1], dialects: {dialects}}}");
    setup
        .route("{name: news, match: {path: /n/*}, upstream: origin}")
        .route(
            "{name: site, upstream: origin, policy: {debug_headers: [x-cache], tags_from: [{header: \
             X-Mine, split: \",\"}]}}",
        )
        .top("purge_method", &purge)
        .top(
            "admin",
            "{address: \"127.0.0.1:0\", hosts: [shop.example], tokens: [{name: cms, token: kkkkkkkk, \
             can: [purge, read]}], purge_apis: {fastly: {shop: \"*\", news: news}, cloudflare: {zone: \
             \"*\"}, souin: on}}",
        )
}

async fn exchange(address: SocketAddr, bytes: String) -> RawAnswer {
    let mut raw = RawConnection::open(address).await;
    raw.write(bytes).await;
    let told = String::from_utf8_lossy(&raw.to_end().await).into_owned();
    let status = told
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    RawAnswer {
        status: status.unwrap_or_else(|| panic!("no status in {told:?}")),
        text: told,
    }
}

/// Sends a form as its client does. The tokens of the table stand for that of the admin listener.
async fn send(gateway: &Gateway, form: &WireForm) -> RawAnswer {
    let mut bytes = format!(
        "{} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n",
        form.send[0]
    );
    for line in &form.send[1..] {
        let line = match line.as_str() {
            "Fastly-Key: k" => "Fastly-Key: kkkkkkkk",
            "X-Auth-Key: k" => "X-Auth-Key: kkkkkkkk",
            "Authorization: Bearer k" => "Authorization: Bearer kkkkkkkk",
            other => other,
        };
        bytes.push_str(&format!("{line}\r\n"));
    }
    let is_admin = form.to.as_deref() == Some("admin");
    if is_admin && form.dialect == "souin" {
        bytes.push_str("Authorization: Bearer kkkkkkkk\r\n");
    }
    if (is_admin && form.send[0].starts_with("POST")) || !form.body.is_empty() {
        bytes.push_str(&format!("Content-Length: {}\r\n", form.body.len()));
    }
    bytes.push_str(&format!("\r\n{}", form.body));
    let address = match is_admin {
        true => gateway.admin,
        false => gateway.address,
    };
    exchange(address, bytes).await
}

async fn shown(node: &Gateway, path: &str) -> u64 {
    let answer = node.client().request(path).host(HOST).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}

/// Two nodes over a bus that speak all dialects.
async fn two_nodes() -> (Nats, Fleet) {
    let nats = Nats::start().await;
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let bus = format!("nats: {{servers: [\"nats://127.0.0.1:{}\"]}}", nats.port);
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let setup = speaking(node(&origin, name, &bus), ALL);
        nodes.push(setup.start().await.with_token("kkkkkkkk"));
    }
    let fleet = Fleet {
        origin,
        pages,
        nodes,
    };
    fleet.whole().await;
    (nats, fleet)
}

/// What the log says was reached by the purge on the listener with this number.
async fn logged_reach(node: &Gateway, number: usize) -> String {
    wait_for("the log tells of the purge", SOON, || async {
        let log = node.log();
        let mut lines = log
            .iter()
            .filter(|line| line.contains("purged by the PURGE method"));
        lines.nth(number).cloned()
    })
    .await
}

/// Whether a line of the log names what the table says that a form means.
fn told_by_log(line: &str, form: &WireForm) -> bool {
    form.means.iter().all(|meant| {
        let (kind, what) = meant.split_once(' ').unwrap_or((meant.as_str(), ""));
        // Of every host.
        let what = what.trim_start_matches('*');
        match kind {
            "page" => line.contains("url ") && line.contains(what),
            "type" | "tag" | "prefix" | "pattern" | "route" => {
                line.contains(&format!("{kind} ")) && line.contains(what)
            }
            "all" => line.contains("\"reached\":\"all"),
            _ => false,
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wire_form_makes_its_pages_new_on_both_nodes_and_no_others() {
    let (_nats, fleet) = two_nodes().await;
    let (mut judged, mut judged_on_listener) = (0, 0);
    for form in table().iter().filter(|form| form.refused.is_none()) {
        let name = format!("{} {} {:?}", form.dialect, form.who, form.send);
        let mut before = Vec::new();
        for page in PAGES {
            for node in &fleet.nodes {
                let expected = fleet.pages.version(page);
                wait_for("the page is stored", SOON, || async {
                    (shown(node, page).await == expected).then_some(())
                })
                .await;
            }
            before.push(fleet.pages.version(page));
            fleet.pages.change(page);
        }
        let told = send(&fleet.nodes[0], form).await;
        let expected = form.answer.as_u64().unwrap_or(200);
        assert_eq!(u64::from(told.status), expected, "{name}: {}", told.text);
        if let Some(part) = form.answer.as_str() {
            assert!(told.text.contains(part), "{name}: {}", told.text);
        }
        // Where the answer can't say what was reached, the log does.
        if form.to.is_none() {
            let reached = logged_reach(&fleet.nodes[0], judged_on_listener).await;
            judged_on_listener += 1;
            assert!(told_by_log(&reached, form), "{name}: the log has {reached}");
        }
        // What was published before this is there when this is.
        let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "barrier"})).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
        for node in &fleet.nodes {
            for (page, old) in PAGES.iter().zip(&before) {
                let is_purged = form.purges.iter().any(|purged| purged == page);
                match (is_purged, form.soft) {
                    (false, _) => assert_eq!(shown(node, page).await, *old, "{name}: {page}"),
                    (true, false) => assert_eq!(shown(node, page).await, old + 1, "{name}: {page}"),
                    (true, true) => {
                        wait_for("a soft purge is followed by a refresh", SOON, || async {
                            (shown(node, page).await == old + 1).then_some(())
                        })
                        .await;
                    }
                }
            }
        }
        // All begin anew.
        purge_everywhere(&fleet.nodes[0], json!({"all": true})).await;
        judged += 1;
    }
    assert!(judged >= 70, "{judged}");
    let strange = fleet
        .origin
        .seen()
        .into_iter()
        .find(|seen| seen.method != "GET");
    assert!(strange.is_none(), "{strange:?} reached the application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_with_words_and_reaches_nothing() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = speaking(Setup::new(&origin), ALL).start().await;
    let gateway = gateway.with_token("kkkkkkkk");
    for page in PAGES {
        shown(&gateway, page).await;
        pages.change(page);
    }
    let (count, mut on_listener) = (origin.count(), 0);
    for form in table() {
        let Some(status) = form.refused else {
            continue;
        };
        let name = format!("{} {} {:?}", form.dialect, form.who, form.send);
        let told = send(&gateway, &form).await;
        assert_eq!(told.status, status, "{name}: {}", told.text);
        assert!(told.text.contains(&form.says), "{name}: {}", told.text);
        assert!(
            told.text.contains("nothing was purged"),
            "{name}: {}",
            told.text
        );
        on_listener += u32::from(form.to.is_none());
    }
    for page in PAGES {
        assert_eq!(shown(&gateway, page).await, 1, "{page}");
    }
    assert_eq!(origin.count(), count);
    let labels = [("result", "not_understood")];
    let counted = gateway.metric("lamina_purge_requests_total", &labels).await;
    assert_eq!(counted, f64::from(on_listener));
}

#[tokio::test]
async fn what_is_not_listed_is_refused_and_names_its_dialect() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = speaking(Setup::new(&origin), "[url]").start().await;
    for page in PAGES {
        shown(&gateway, page).await;
        pages.change(page);
    }
    let count = origin.count();
    // A GET below the prefix of nginx is an ordinary request then.
    let unlisted = |form: &WireForm| {
        let is_read = form.send[0].starts_with("GET ");
        form.to.is_none() && form.refused.is_none() && form.dialect != "url" && !is_read
    };
    for form in table().iter().filter(|form| unlisted(form)) {
        let told = send(&gateway, form).await;
        let name = format!("{} {:?}: {}", form.dialect, form.send, told.text);
        assert_eq!(told.status, 501, "{name}");
        assert!(told.text.contains("accepted are"), "{name}");
        assert!(told.text.contains(&format!("`{}`", form.dialect)), "{name}");
    }
    for page in PAGES {
        assert_eq!(shown(&gateway, page).await, 1, "{page}");
    }
    assert_eq!(origin.count(), count);
}

#[tokio::test]
async fn below_the_prefix_of_nginx_strangers_get_403_and_what_was_not_stored_is_404() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = speaking(Setup::new(&origin), "[nginx]").start().await;
    let get = |path: &str| {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        exchange(gateway.address, bytes)
    };
    assert_eq!(get("/purge/a").await.status, 404);
    shown(&gateway, "/a").await;
    assert_eq!(get("/purge/a").await.status, 200);
    assert_eq!(get("/purge/a").await.status, 404, "it is gone");
    assert_eq!(origin.count(), 1);
    let stranger = Setup::new(&origin)
        .top(
            "purge_method",
            "{enabled: true, allow: [10.0.0.1], dialects: [nginx, souin]}",
        )
        .start()
        .await;
    for path in ["/purge/a", "/souin-api/souin/flush"] {
        let told = stranger
            .client()
            .uncached()
            .request(path)
            .host(HOST)
            .send()
            .await;
        assert_eq!(told.status, 403, "{path}");
    }
    let page = stranger.client().request("/purged").host(HOST).send().await;
    assert_eq!(page.status, 200, "another path is a page");
}

#[tokio::test]
async fn a_refresh_by_somebody_on_the_list_loads_the_page_again_for_everybody() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = speaking(Setup::new(&origin), "[refresh]").start().await;
    let with = |name: &'static str, value: &'static str| {
        let ask = gateway.client().request("/a").host(HOST);
        ask.header(name, value).send()
    };
    for (name, value) in [("cache-control", "no-cache"), ("x-refresh", "1")] {
        shown(&gateway, "/a").await;
        let version = pages.change("/a");
        let answer = with(name, value).await;
        assert_eq!(answer.text(), version.to_string(), "{name}");
        assert_eq!(shown(&gateway, "/a").await, version, "{name}");
        assert!(!origin.last().headers.contains_key("x-refresh"));
        let next = pages.change("/a");
        assert_ne!(next, shown(&gateway, "/a").await, "it is stored");
    }
    let (old, new) = (shown(&gateway, "/a").await, pages.change("/a"));
    let ask = gateway.client().request("/a").host(HOST);
    let ask = ask.header("cache-control", "no-cache");
    let of_a_page = ask.header("sec-fetch-site", "cross-site").send().await;
    assert_ne!(old, new);
    assert_eq!(of_a_page.text(), old.to_string(), "a page of another site");
    let others = Setup::new(&origin)
        .top(
            "purge_method",
            "{enabled: true, allow: [10.0.0.1], dialects: [refresh]}",
        )
        .start()
        .await;
    let old = shown(&others, "/a").await;
    pages.change("/a");
    let ask = others.client().request("/a").host(HOST);
    let answer = ask.header("cache-control", "no-cache").send().await;
    assert_eq!(
        answer.text(),
        old.to_string(),
        "a stranger's reload is an ordinary request"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_refreshes_is_new_on_the_other_one() {
    let (_nats, fleet) = two_nodes().await;
    for node in &fleet.nodes {
        shown(node, "/a").await;
    }
    let version = fleet.pages.change("/a");
    let ask = fleet.nodes[0].client().request("/a").host(HOST);
    let answer = ask.header("cache-control", "no-cache").send().await;
    assert_eq!(answer.text(), version.to_string());
    wait_for("the other node shows it", SOON, || async {
        (shown(&fleet.nodes[1], "/a").await == version).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tokens_of_the_apis_are_needed_in_one_of_their_fields() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = speaking(Setup::new(&origin), "[url]").start().await;
    let post = |path: &str, field: &str| {
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{field}Content-Length: \
             0\r\n\r\n"
        );
        exchange(gateway.admin, bytes)
    };
    let path = "/service/shop/purge_all";
    assert_eq!(post(path, "").await.status, 403, "a page could send it");
    let wrong = post(path, "Fastly-Key: wrong\r\n").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("\"msg\""), "{}", wrong.text);
    let zone = "/client/v4/zones/zone/purge_cache";
    let wrong = post(zone, "Authorization: Bearer wrong\r\n").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("\"success\":false"), "{}", wrong.text);
    assert_eq!(post(path, "Fastly-Key: kkkkkkkk\r\n").await.status, 200);
    let logged = |line: &str| line.contains("purge_all") && line.contains("cms");
    gateway.logged("an audit line", logged).await;
    let off = Setup::new(&origin).start().await;
    let bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nFastly-Key: \
         x\r\nContent-Length: 0\r\n\r\n"
    );
    let told = exchange(off.admin, bytes).await;
    assert_eq!(told.status, 404, "{}", told.text);
    assert!(
        told.text.contains("admin.purge_apis.fastly"),
        "{}",
        told.text
    );
}

#[tokio::test]
async fn a_token_may_come_as_fastlys_key_on_the_listeners() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", "{enabled: true, token: a-long-token}")
        .start()
        .await;
    for (key, status) in [("a-long-token", 200), ("another", 403)] {
        let bytes = format!(
            "PURGE /a HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nFastly-Key: {key}\r\n\r\n"
        );
        assert_eq!(
            exchange(gateway.address, bytes).await.status,
            status,
            "{key}"
        );
    }
}

#[tokio::test]
async fn the_debug_header_tells_hits_from_misses_and_is_off_unless_asked_for() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let gateway = Setup::new(&origin)
        .route("{name: quiet, match: {path: /b}, upstream: origin}")
        .route("{name: site, upstream: origin, policy: {debug_headers: [x-cache, x-varnish]}}")
        .start()
        .await;
    let get = |path: &'static str| gateway.client().request(path).host(HOST).send();
    let miss = get("/a").await;
    assert_eq!(miss.header("x-cache"), "MISS");
    assert!(miss.header("x-varnish").parse::<u64>().is_ok());
    let hit = get("/a").await;
    assert_eq!(hit.header("x-cache"), "HIT");
    assert_eq!(hit.header("x-varnish").split(' ').count(), 2);
    let quiet = get("/b").await;
    assert!(!quiet.has("x-cache") && !quiet.has("x-varnish"));
}

#[tokio::test]
async fn a_configured_tag_field_is_read_and_removed_unless_it_is_kept() {
    let origin = Origin::pages(|_| {
        Reply::fresh("x")
            .header("x-mine", "one two;three")
            .header("x-kept", "four")
    })
    .await;
    let gateway = Setup::new(&origin)
        .policy("{tags_from: [{header: X-Mine, split: \";\"}, {header: x-kept, split: \" \", keep: true}]}")
        .start()
        .await;
    for tag in ["one two", "three", "four"] {
        let first = gateway.client().get("/").await;
        assert!(!first.has("x-mine"));
        assert_eq!(first.header("x-kept"), "four");
        assert!(gateway.client().get("/").await.is_hit());
        gateway.purge(json!({"tag": tag})).await;
        assert!(!gateway.client().get("/").await.is_hit(), "{tag}");
        gateway.purge(json!({"all": true})).await;
    }
}

/// No page can have a browser send PURGE or BAN unasked, but a GET it can.
#[tokio::test]
async fn a_page_purges_nothing_by_a_get() {
    let pages = Pages::default();
    let versions = pages.clone();
    let origin = Origin::pages(move |seen| match seen.path_only() {
        "/list" => Reply::fresh("<esi:include src=\"/purge/a\" onerror=\"continue\"/>")
            .header("content-type", "text/html")
            .header("surrogate-control", "content=\"ESI/1.0\""),
        path => Reply::fresh(versions.version(path).to_string()),
    })
    .await;
    let purge = "{enabled: true, allow: [127.0.0.1], dialects: [nginx]}";
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, esi: {}}")
        .top("purge_method", purge)
        .start()
        .await;
    let old = shown(&gateway, "/a").await;
    let new = pages.change("/a");
    let from = |site: &'static str| {
        let ask = gateway.client().uncached().request("/purge/a").host(HOST);
        ask.header("sec-fetch-site", site).send()
    };
    for site in ["cross-site", "same-site"] {
        let told = from(site).await;
        assert_eq!(told.status, 403, "{site}: {}", told.text());
        assert_eq!(shown(&gateway, "/a").await, old, "{site}");
    }
    let list = gateway.client().request("/list").host(HOST).send().await;
    assert_eq!(list.status, 200, "{}", list.text());
    assert_eq!(list.text(), "", "the part is left out");
    assert_eq!(shown(&gateway, "/a").await, old, "a part of a page purges");
    let told = from("none").await;
    assert_eq!(told.status, 200, "a person types it: {}", told.text());
    assert_eq!(shown(&gateway, "/a").await, new);
}

#[tokio::test]
async fn a_ban_of_a_page_on_every_host_reaches_it_whatever_its_key_leaves_out() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let purge = "{enabled: true, allow: [127.0.0.1], dialects: [varnish]}";
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, key: {query: {drop: [\"utm_*\"]}}}")
        .top("purge_method", purge)
        .start()
        .await;
    let old = shown(&gateway, "/a?utm_source=x").await;
    let new = pages.change("/a");
    assert_eq!(shown(&gateway, "/a").await, old, "both are one page");
    let ban = format!(
        "BAN / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nX-Host: .*\r\nX-Url: ^/a$\r\n\r\n"
    );
    assert_eq!(exchange(gateway.address, ban).await.status, 200);
    for path in ["/a", "/a?utm_source=x"] {
        assert_eq!(shown(&gateway, path).await, new, "{path}");
    }
}

/// PD6: the list of addresses holds for each dialect, whatever the request brings beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_wrong_address_no_form_of_any_dialect_purges_not_even_with_the_token() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let purge = format!("{{enabled: true, allow: [10.0.0.1], token: kkkkkkkk, dialects: {ALL}}}");
    let setup = speaking(Setup::new(&origin), ALL).top("purge_method", &purge);
    let gateway = setup.start().await;
    for page in PAGES {
        shown(&gateway, page).await;
        pages.change(page);
    }
    let count = origin.count();
    let mut judged = 0;
    for form in table().into_iter().filter(|form| form.to.is_none()) {
        for token in ["", "Authorization: Bearer kkkkkkkk", "Fastly-Key: kkkkkkkk"] {
            let mut bytes = format!(
                "{} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n",
                form.send[0]
            );
            for line in form.send[1..].iter().map(String::as_str).chain([token]) {
                let is_key = line.starts_with("Fastly-Key") && line != token;
                if !line.is_empty() && !is_key {
                    bytes.push_str(&format!("{line}\r\n"));
                }
            }
            bytes.push_str("\r\n");
            let told = exchange(gateway.address, bytes).await;
            assert_eq!(told.status, 403, "{:?} {token}: {}", form.send, told.text);
            assert!(
                told.text.contains("nothing was purged"),
                "{:?}: {}",
                form.send,
                told.text
            );
            judged += 1;
        }
    }
    assert!(judged >= 150, "{judged}");
    for page in PAGES {
        assert_eq!(shown(&gateway, page).await, 1, "{page}");
    }
    assert_eq!(origin.count(), count);
}
