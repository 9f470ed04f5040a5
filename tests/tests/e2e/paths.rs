//! One path in many spellings: no spelling leads past the route that is meant for it, and
//! key, purges, log and origin share one form.

use std::collections::BTreeSet;

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::h2raw::{End, H2, get};
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use serde_json::{Value, json};

/// `/account/me` as RFC 3986 §6.2.2 calls it equivalent.
const EQUIVALENT: [&str; 7] = [
    "/account/me",
    "/%61ccount/me",
    "/account/%6De",
    "/./account/me",
    "/x/../account/me",
    "/account/%2e%2e/account/./me",
    "/x/y/.%2E/%2e./account/me",
];

/// Paths that some origin takes for `/account/me`, and that are other ones to HTTP.
const AMBIGUOUS: [&str; 19] = [
    "//account/me",
    "///account//me",
    "/account%2fme",
    "/%2Faccount/me",
    "/account%252Fme",
    "/%2561ccount/me",
    "/%252561ccount/me",
    "/account;x/me",
    "/account;x=1;y/me",
    "/account%3Bx/me",
    "/x/..;/account/me",
    "/x/..;y=1/account/me",
    "/x%2f..%2faccount/me",
    "/x/%2E%2E%2Faccount/me",
    "/x/%252e%252e/account/me",
    "/x/%252e%252e%252faccount/me",
    "/x//%2F..%2F..%2F..%2Faccount/me",
    "/%2e%2e%2faccount/me",
    "/;/account/me",
];

/// Paths with octets that no path needs.
const UNUSUAL: [&str; 7] = [
    "/account%5cme",
    "/account%5Cme",
    "/account\\me",
    "/x/..\\account/me",
    "/x%5c..%5caccount/me",
    "/account/me%00",
    "/account%00/me",
];

/// An origin that decodes, merges and resolves whatever it gets, as many do, and says that
/// the account of whoever asks may be stored.
async fn normalising() -> Origin {
    Origin::pages(|seen| match resolved(&seen.path).as_str() {
        "/account/me" => Reply::fresh(format!("account of {}", seen.header("cookie"))),
        path => Reply::fresh(format!("page {path}")),
    })
    .await
}

/// A path after two rounds of decoding, without parameters, NUL, dots and empty segments.
fn resolved(target: &str) -> String {
    let mut path = target.split('?').next().unwrap().to_owned();
    for _ in 0..3 {
        path = decoded(&path);
    }
    let text = path.replace('\\', "/");
    let text = text.split('\0').next().unwrap();
    let mut kept = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

fn decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut text = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let octet = piece
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match octet {
            Some(octet) => text.extend([octet as char].into_iter().chain(piece[2..].chars())),
            None => text.extend(['%'].into_iter().chain(piece.chars())),
        }
    }
    text
}

const ACCOUNT: &str =
    "{name: account, match: {path: [/account/*, /account]}, upstream: origin, cache: off}";
const SITE: &str = "{name: site, upstream: origin}";

async fn guarded(origin: &Origin) -> Gateway {
    Setup::new(origin).route(ACCOUNT).route(SITE).start().await
}

/// Status and body of a GET whose target goes over the wire as it is, to the host of
/// [`raw_http2`].
async fn raw(gateway: &Gateway, target: &str, fields: &str) -> (u16, String) {
    let mut connection = gateway.raw().await;
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: attacker.test\r\nConnection: close\r\n{fields}\r\n"
    );
    connection.write(head).await;
    let status = connection.head().await.status;
    let body = connection.to_end().await;
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn raw_http2(gateway: &Gateway, target: &str) -> (u16, String) {
    let mut connection = H2::open(gateway.address).await;
    connection.write(get(1, target)).await;
    match connection.end_of(1).await {
        End::Answered { status, body } => (status, String::from_utf8(body).unwrap()),
        end => panic!("{target}: {end:?}"),
    }
}

#[tokio::test]
async fn no_spelling_leads_past_a_route_that_is_not_cached() {
    let origin = normalising().await;
    let gateway = guarded(&origin).await;
    let mut faults = Vec::new();
    for target in EQUIVALENT {
        origin.forget();
        let own = raw(&gateway, target, "Cookie: alice\r\n").await;
        let others = raw(&gateway, target, "").await;
        let over_http2 = raw_http2(&gateway, target).await;
        let wanted = [
            (200, "account of alice".to_owned()),
            (200, "account of ".to_owned()),
            (200, "account of ".to_owned()),
        ];
        let asked: BTreeSet<String> = origin.seen().into_iter().map(|seen| seen.path).collect();
        if [own, others, over_http2] != wanted || !asked.iter().eq(["/account/me"]) {
            faults.push(format!("{target}: the origin was asked for {asked:?}"));
        }
    }
    origin.forget();
    for target in AMBIGUOUS.iter().chain(&UNUSUAL) {
        let answers = [
            raw(&gateway, target, "Cookie: alice\r\n").await,
            raw(&gateway, target, "").await,
            raw_http2(&gateway, target).await,
        ];
        if answers.iter().any(|(status, _)| *status != 400) {
            faults.push(format!("{target}: {answers:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(origin.count(), 0, "{:?}", origin.seen());
}

#[tokio::test]
async fn no_spelling_leads_past_a_guard() {
    let origin = normalising().await;
    let guard = "{guard: {file: asker.wasm, config: {rules: {/account/me: {refuse: 403}}}, \
                 on_error: {request: refuse}, limits: {hook_timeout: 10s}}}";
    let gateway = Setup::new(&origin)
        .file("asker.wasm", guest::built("asker"))
        .top("plugins", guard)
        .route("{name: account, match: {path: /account/*}, upstream: origin, request: {plugin: guard}}")
        .route(SITE)
        .start()
        .await;
    for target in EQUIVALENT {
        assert_eq!(raw(&gateway, target, "").await.0, 403, "{target}");
        assert_eq!(raw_http2(&gateway, target).await.0, 403, "{target}");
    }
    for target in AMBIGUOUS.iter().chain(&UNUSUAL) {
        assert_eq!(raw(&gateway, target, "").await.0, 400, "{target}");
        assert_eq!(raw_http2(&gateway, target).await.0, 400, "{target}");
    }
    assert_eq!(origin.count(), 0, "{:?}", origin.seen());
}

#[tokio::test]
async fn another_path_is_another_path() {
    let origin = normalising().await;
    let gateway = guarded(&origin).await;
    for target in [
        "/ACCOUNT/me",
        "/accounts/me",
        "/x/account/me",
        "/account.html",
    ] {
        let (status, body) = raw(&gateway, target, "").await;
        assert_eq!((status, body), (200, format!("page {target}")));
        assert_eq!(origin.last().path, target);
    }
}

#[tokio::test]
async fn all_spellings_of_a_page_are_one_entry_and_one_request_to_the_origin() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin).start().await;
    for (form, spellings) in [
        (
            "/p/caf%C3%A9?q=~%2F",
            &[
                "/p/caf%c3%a9?q=%7E%2f",
                "/%70/café?q=~%2F",
                "/p/x/../caf%C3%a9?q=%7e%2F",
                "/p/%2e/caf%C3%A9?q=~%2f",
            ][..],
        ),
        ("/%20%25?x=%25", &["/%20%?x=%", "/a/../%20%25?x=%25"]),
        ("/?a", &["/..?a", "/./?a", "/%2e%2e/.?%61"]),
    ] {
        origin.forget();
        for spelling in spellings {
            let (status, body) = raw(&gateway, spelling, "").await;
            assert_eq!((status, &*body), (200, form), "{spelling}");
            let (status, body) = raw_http2(&gateway, spelling).await;
            assert_eq!((status, &*body), (200, form), "{spelling} over HTTP/2");
        }
        assert_eq!(origin.count(), 1, "{form}");
    }
    gateway
        .logged("a request line", |line| {
            line.contains("/p/caf%C3%A9?q=~%2F")
        })
        .await;
    assert!(!gateway.log().iter().any(|line| line.contains("%c3")));
}

#[tokio::test]
async fn what_is_reserved_comes_to_the_origin_as_it_was_sent() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin)
        .route("{name: api, match: {path: /api/*}, upstream: origin}")
        .route(SITE)
        .start()
        .await;
    let targets = [
        "/@scope%2Fname",
        "/%40scope%2Fname",
        "/@scope/name",
        "/api/v4/projects/group%2Fproject",
        "/api/v4/projects/group/project",
        "/bucket//key",
        "/bucket/key",
        "/a;v=1/b",
        "/a/b",
        "/proxy/http://other.example/x",
        "/search/100%25",
        "/search/a%252Fb",
        "/?q=%2f..%2F//",
        "/wiki/A_(b)!",
    ];
    for target in targets {
        let (status, body) = raw(&gateway, target, "").await;
        assert_eq!(status, 200, "{target}");
        assert_eq!(body.to_ascii_uppercase(), target.to_ascii_uppercase());
    }
    assert_eq!(origin.count(), targets.len(), "each is an entry of its own");
}

#[tokio::test]
async fn a_routes_own_pattern_is_matched_in_any_spelling() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    for pattern in ["/café/*", "/caf%c3%a9/*", "/%63af%C3%A9/*"] {
        let route = format!("{{name: cafe, match: {{path: \"{pattern}\"}}, upstream: origin}}");
        let gateway = Setup::new(&origin).route(&route).start().await;
        for target in ["/café/1", "/caf%C3%A9/1", "/caf%c3%a9/1"] {
            assert_eq!(raw(&gateway, target, "").await.0, 200, "{pattern} {target}");
        }
        assert_eq!(raw(&gateway, "/cafe/1", "").await.0, 404);
    }
}

/// Answers of a gateway whose listener and whose route `/r/*` have these rules.
async fn by_rules(listener: &str, route: &str, targets: &[&str]) -> Vec<String> {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin)
        .listener("path", listener)
        .route(&format!(
            "{{name: r, match: {{path: /r/*}}, upstream: origin, path: {route}}}"
        ))
        .route(ACCOUNT)
        .route(SITE)
        .start()
        .await;
    let mut answers = Vec::new();
    for target in targets {
        let (status, body) = raw(&gateway, target, "").await;
        answers.push(match status {
            200 => body,
            status => status.to_string(),
        });
    }
    answers
}

#[tokio::test]
async fn rules_keep_change_or_refuse_and_a_routes_own_go_first() {
    let targets = [
        "/r//a", "//r/a", "/s//a", "/r/a%2fb", "/s/a%2Fb", "/r/a%5cb", "/r/%00",
    ];
    for (listener, route, wanted) in [
        (
            "{}",
            "{}",
            [
                "/r//a", "400", "/s//a", "/r/a%2Fb", "/s/a%2Fb", "400", "400",
            ],
        ),
        (
            "{slashes: merge, escaped_slash: decode}",
            "{}",
            ["/r/a", "/r/a", "/s/a", "/r/a/b", "/s/a/b", "400", "400"],
        ),
        (
            "{slashes: refuse, escaped_slash: refuse}",
            "{slashes: keep, escaped_slash: keep}",
            ["/r//a", "400", "400", "/r/a%2Fb", "400", "400", "400"],
        ),
        (
            "{slashes: merge, nul: keep}",
            "{slashes: keep, backslash: keep}",
            [
                "/r//a", "400", "/s/a", "/r/a%2Fb", "/s/a%2Fb", "/r/a%5Cb", "/r/%00",
            ],
        ),
        (
            "{}",
            "{slashes: merge, escaped_slash: refuse}",
            ["/r/a", "400", "/s//a", "400", "/s/a%2Fb", "400", "400"],
        ),
    ] {
        let found = by_rules(listener, route, &targets).await;
        assert_eq!(found, wanted, "{listener} {route}");
    }
    // What a rule makes of a path does not leave its route.
    let away = [
        "/r/..%2Faccount/me",
        "/r/%2e%2e%2faccount",
        "/r/x%5c..%5c..%5caccount",
    ];
    let found = by_rules("{}", "{escaped_slash: decode, backslash: keep}", &away).await;
    assert_eq!(found, ["400"; 3]);
    let merged = by_rules("{slashes: merge}", "{}", &["//account/me"]).await;
    assert_eq!(merged, ["/account/me"]);
}

#[tokio::test]
async fn the_reason_stands_in_the_log_and_in_explain() {
    let origin = normalising().await;
    let setup = Setup::new(&origin).route(ACCOUNT).route(SITE);
    let gateway = setup.start().await;
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap();
    for (target, reason) in [
        (
            "//account/me",
            "route site, but an origin may read it as /account/me",
        ),
        ("/account%2Fme", "selects route account"),
        ("/account%5Cme", "the path has a backslash"),
        ("/account%00", "the path has a NUL"),
    ] {
        let (status, body) = raw(&gateway, target, "").await;
        assert_eq!(status, 400);
        assert!(
            !body.contains("account"),
            "a client learns no route: {body}"
        );
        let says = |line: &str| line.contains(reason) && line.contains("\"request\"");
        gateway.logged(reason, says).await;
        let url = format!("http://a{target}");
        let asked = json!({"url": url}).to_string();
        let explained = gateway.admin(Method::POST, "/v1/explain", &asked).await;
        let explained: Value = serde_json::from_str(&explained.text).unwrap();
        let decision = explained["decision"].as_str().unwrap();
        assert!(
            decision.starts_with("refuse (400)") && decision.contains(reason),
            "{decision}"
        );
        let ran = cli::run(&["explain", "-c", config, &url]);
        assert!(ran.stdout.contains(reason), "{ran:?}");
    }
    let ran = cli::run(&["explain", "-c", config, "http://a/x/../%61ccount/me"]);
    assert!(
        ran.stdout.contains("form      http://a/account/me"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("route     account"), "{ran:?}");
}

#[tokio::test]
async fn validate_tells_a_pattern_that_no_answered_path_matches() {
    let origin = normalising().await;
    for (pattern, word) in [
        ("/a/../b/*", "dot segments"),
        ("/group%2fproject/*", "/group/project/x"),
        ("/a%5cb", "backslash: keep"),
    ] {
        let route = format!("{{name: a, match: {{path: \"{pattern}\"}}, upstream: origin}}");
        let (_dir, config) = Setup::new(&origin).route(&route).route(SITE).write();
        let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.output().contains(word), "{pattern}: {ran:?}");
    }
}

const PAGE: &str = "/p/caf%C3%A9";
const SPELLINGS: [&str; 4] = [
    "/p/café",
    "/p/caf%c3%a9",
    "/%70/caf%C3%A9",
    "/x/../p/caf%C3%a9",
];

/// Fills the cache with the page and its neighbour; both are there then.
async fn filled(gateway: &Gateway) {
    for page in [PAGE, "/q"] {
        gateway.client().get(page).await;
        assert!(gateway.client().get(page).await.is_hit(), "{page}");
    }
}

/// The page is gone, and its neighbour is not.
async fn is_purged(gateway: &Gateway, by: &str) {
    assert!(!gateway.client().get(PAGE).await.is_hit(), "{by}");
    assert!(gateway.client().get("/q").await.is_hit(), "{by}");
}

#[tokio::test]
async fn a_purge_reaches_a_page_by_every_spelling() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", "{enabled: true, allow: [127.0.0.0/8]}")
        .start()
        .await;
    let host = gateway.address;
    for spelling in SPELLINGS {
        for selector in [
            json!({"url": format!("http://{host}{spelling}")}),
            json!({"prefix": spelling}),
            json!({"prefix": format!("http://{host}{spelling}")}),
            json!({"pattern": spelling}),
            json!({"pattern": format!("{spelling}*")}),
            json!({"pattern": format!("*{}", spelling.replace("/x/..", ""))}),
        ] {
            filled(&gateway).await;
            gateway.purge(selector.clone()).await;
            is_purged(&gateway, &selector.to_string()).await;
        }
        filled(&gateway).await;
        let mut raw = gateway.raw().await;
        raw.write(format!("PURGE {spelling} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(raw.head().await.status, 200, "{spelling}");
        is_purged(&gateway, spelling).await;
    }
    // The beginning of an escape is the beginning of its path.
    for prefix in ["/p/caf%c3%a", "/p/caf%C3%", "/p/caf%", "/p/ca"] {
        filled(&gateway).await;
        gateway.purge(json!({"prefix": prefix})).await;
        is_purged(&gateway, prefix).await;
    }
}

#[tokio::test]
async fn what_an_unsafe_request_names_in_any_spelling_is_purged() {
    let origin = Origin::pages(|seen: &Seen| match seen.header("x-names") {
        "" => Reply::fresh("x"),
        name => {
            let spelling: usize = seen.header("x-named").parse().unwrap();
            Reply::ok("done").header(name, SPELLINGS[spelling])
        }
    })
    .await;
    let rules = "{invalidate: [{on: [POST], purge: [{url: \"{header.x-url}\"}]}, \
                 {on: [PUT], purge: [{prefix: \"{header.x-url}\"}]}, \
                 {on: [PATCH], purge: [{pattern: \"{header.x-url}\"}]}], name: site, upstream: origin}";
    let gateway = Setup::new(&origin).route(rules).start().await;
    let client = gateway.client();
    for (n, spelling) in SPELLINGS.into_iter().enumerate() {
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            filled(&gateway).await;
            let ask = client.ask(method.clone(), "/form");
            ask.header("x-url", spelling).send().await;
            is_purged(&gateway, &format!("{method} {spelling}")).await;
        }
        for field in ["location", "content-location"] {
            filled(&gateway).await;
            let ask = client.ask(Method::POST, "/form").header("x-names", field);
            ask.header("x-named", &n.to_string()).send().await;
            is_purged(&gateway, &format!("{field}: {spelling}")).await;
        }
    }
    for spelling in SPELLINGS {
        filled(&gateway).await;
        let mut raw = gateway.raw().await;
        let head = format!(
            "DELETE {spelling} HTTP/1.1\r\nHost: {}\r\n\r\n",
            gateway.address
        );
        raw.write(head).await;
        assert_eq!(raw.head().await.status, 200);
        is_purged(&gateway, &format!("DELETE {spelling}")).await;
    }
}

#[tokio::test]
async fn what_a_request_plugin_writes_gets_the_normal_form_too() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let rules = "{/a: {path: \"/x/../caf%c3%a9\"}, /b: {path: \"/%63af%C3%A9\"}, \
                 /c: {path: \"/x%5cy\"}, /d: {path: \"/x//y\"}}";
    let plugins = format!(
        "{{p: {{file: asker.wasm, config: {{rules: {rules}}}, on_error: {{request: refuse}}, limits: {{hook_timeout: 10s}}}}}}"
    );
    let gateway = Setup::new(&origin)
        .file("asker.wasm", guest::built("asker"))
        .top("plugins", &plugins)
        .route("{name: s, upstream: origin, request: {plugin: p}, path: {slashes: merge}}")
        .start()
        .await;
    for target in ["/a", "/b", "/caf%C3%A9"] {
        assert_eq!(
            raw(&gateway, target, "").await,
            (200, "/caf%C3%A9".to_owned())
        );
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(raw(&gateway, "/c", "").await.0, 400);
    assert_eq!(raw(&gateway, "/d", "").await, (200, "/x/y".to_owned()));
}

#[tokio::test]
async fn a_fragment_is_refused_over_http2_as_over_http1() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin).start().await;
    let mut connection = H2::open(gateway.address).await;
    let mut stream = 1;
    for target in ["/a#b", "/a?b#c", "/#", "#x", "/a#", "/caf%c3%a9#x"] {
        assert_eq!(
            raw(&gateway, target, "").await.0,
            400,
            "{target} over HTTP/1"
        );
        connection.write(get(stream, target)).await;
        let end = connection.end_of(stream).await;
        assert!(
            matches!(end, End::Answered { status: 400, .. }),
            "{target}: {end:?}"
        );
        stream += 2;
    }
    assert_eq!(origin.count(), 0);
    connection.write(get(stream, "/a")).await;
    let body = b"/a".to_vec();
    assert_eq!(
        connection.end_of(stream).await,
        End::Answered { status: 200, body }
    );
}
