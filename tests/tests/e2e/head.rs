//! One request has one head: what `Connection` names is gone for the cache, the plugins, the
//! log and the origin alike (RFC 9110 §7.6.1, RFC 9111 §4.1), and so it is with a response.

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Version;

use crate::l2::{over, redis_at, written};

/// Fields that a client may have, each with a value.
const FIELDS: [(&str, &str); 12] = [
    ("accept", "text/plain"),
    ("accept-encoding", "br"),
    ("accept-language", "de"),
    ("authorization", "Basic eA=="),
    ("cache-control", "max-age=3600"),
    ("cookie", "a=1"),
    ("if-none-match", "\"a\""),
    ("origin", "http://a"),
    ("range", "bytes=0-"),
    ("referer", "http://a/"),
    ("user-agent", "phone"),
    ("x-plan", "gold"),
];

/// Ways to name a field in `Connection`.
fn connections(name: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    vec![
        format!("Connection: {name}\r\n"),
        format!("connection: keep-alive, {upper}\r\n"),
        format!("CONNECTION: ,, {name} ,\t,\r\nConnection: close\r\n"),
        format!("Connection: close\r\nX-Between: 1\r\nConnection:{upper},{name}\r\n"),
    ]
}

/// Sends a GET and reads its answer to the end.
async fn get(gateway: &Gateway, path: &str, version: &str, head: &str) -> String {
    let mut raw = gateway.raw().await;
    raw.write(format!("GET {path} {version}\r\nHost: a\r\n{head}\r\n"))
        .await;
    let answer = raw.head().await;
    let length = answer.header("content-length").parse().unwrap();
    String::from_utf8(raw.exactly(length).await).unwrap()
}

/// An origin whose page is the value of the field that its path names.
async fn telling(vary: bool) -> Origin {
    Origin::pages(move |seen| {
        let name = seen.path.split('/').nth(1).unwrap().to_owned();
        let page = Reply::fresh(format!("[{}]", seen.header(&name)));
        if vary {
            page.header("vary", &name)
        } else {
            page
        }
    })
    .await
}

#[tokio::test]
async fn a_client_cannot_take_a_field_from_the_origin_alone() {
    let origin = telling(true).await;
    let gateway = Setup::new(&origin).start().await;
    for (name, value) in FIELDS {
        for (n, connection) in connections(name).iter().enumerate() {
            for version in ["HTTP/1.0", "HTTP/1.1"] {
                let path = format!("/{name}/{n}/{version}");
                let field = format!("{name}: {value}\r\n");
                let attack = get(&gateway, &path, version, &format!("{connection}{field}")).await;
                let seen = format!("[{}]", origin.last().header(name));
                assert_eq!(attack, seen, "{path}");
                // A load has no conditions and no range.
                if ["if-none-match", "range"].contains(&name) {
                    continue;
                }
                let victim = get(&gateway, &path, version, &field).await;
                assert_eq!(victim, format!("[{value}]"), "{path}");
                assert_eq!(get(&gateway, &path, version, "").await, "[]", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_keyed_field_that_connection_names_is_in_neither_key_nor_request() {
    let origin = telling(false).await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, key: {headers: [x-plan], cookies: [plan]}}")
        .start()
        .await;
    for (n, connection) in connections("x-plan").iter().enumerate() {
        let path = format!("/x-plan/{n}");
        let attack = get(
            &gateway,
            &path,
            "HTTP/1.1",
            &format!("{connection}X-Plan: gold\r\n"),
        )
        .await;
        assert_eq!(attack, "[]", "{path}");
        assert_eq!(
            get(&gateway, &path, "HTTP/1.1", "x-plan: gold\r\n").await,
            "[gold]"
        );
        assert_eq!(get(&gateway, &path, "HTTP/1.1", "").await, "[]");
        let path = format!("/cookie/{n}");
        let connection = connection
            .replace("x-plan", "cookie")
            .replace("X-PLAN", "COOKIE");
        get(
            &gateway,
            &path,
            "HTTP/1.1",
            &format!("{connection}Cookie: plan=gold\r\n"),
        )
        .await;
        assert_eq!(
            get(&gateway, &path, "HTTP/1.1", "cookie: plan=gold\r\n").await,
            "[plan=gold]"
        );
    }
}

#[tokio::test]
async fn a_route_is_chosen_by_what_the_origin_gets() {
    let origin = Origin::pages(|seen| Reply::ok(format!("[{}]", seen.header("x-beta")))).await;
    let gateway = Setup::new(&origin)
        .route("{name: beta, match: {header: {x-beta: \"on\"}}, upstream: origin}")
        .route("{name: site, upstream: origin, policy: {mode: override, ttl: 1d}}")
        .start()
        .await;
    let named = "Connection: x-beta\r\nX-Beta: on\r\n";
    assert_eq!(get(&gateway, "/", "HTTP/1.1", named).await, "[]");
    assert_eq!(get(&gateway, "/", "HTTP/1.1", "").await, "[]");
    assert_eq!(origin.count(), 1, "both took the same route");
}

#[tokio::test]
async fn the_origin_gets_the_host_as_the_key_holds_it() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.authority.clone())).await;
    let gateway = Setup::new(&origin).start().await;
    let mut raw = gateway.raw().await;
    raw.write("GET / HTTP/1.1\r\nHost: SHOP.Example:80\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 200);
    let victim = gateway
        .client()
        .request("/")
        .host("shop.example")
        .send()
        .await;
    assert_eq!((victim.text(), victim.is_hit()), ("shop.example", true));
}

#[tokio::test]
async fn what_is_of_the_connection_selects_no_variant() {
    let origin = Origin::pages(|_| {
        Reply::fresh("x").header("vary", "Connection, Keep-Alive, Upgrade, Proxy-Connection")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    for head in [
        "",
        "Connection: keep-alive\r\n",
        "Connection: x\r\nKeep-Alive: timeout=5\r\n",
        "TE: gzip\r\nConnection: te\r\n",
        "Proxy-Connection: close\r\n",
        "Upgrade: h2c\r\n",
    ] {
        get(&gateway, "/", "HTTP/1.1", head).await;
        let (te, connection) = (origin.last().header("te").to_owned(), origin.last());
        assert_eq!(
            (te.as_str(), connection.header("connection")),
            ("", ""),
            "{head}"
        );
    }
    assert_eq!(origin.count(), 1);
}

/// A site whose requests a plugin looks at, by these rules.
async fn guarded(config: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| {
        Reply::ok(
            ["x-user", "x_user", "x.user"]
                .map(|name| seen.header(name))
                .join("|"),
        )
    })
    .await;
    let limits = "{hook_timeout: 10s}";
    let gateway = Setup::new(&origin)
        .file("asker.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!("{{p: {{file: asker.wasm, config: {config}, on_error: {{request: refuse}}, limits: {limits}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}, policy: {mode: override, ttl: 1d}}")
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn a_client_cannot_name_what_a_plugin_sets_nor_spell_it_otherwise() {
    let set =
        "{set: {x-user: guard, connection: x-user, keep-alive: a, proxy-connection: b, te: c}}";
    let (origin, gateway) = guarded(&format!("{{rules: {{/: {set}, /post: {set}}}}}")).await;
    for connection in connections("x-user") {
        for user in ["X-User: me\r\n", "X_User: me\r\nx.user: me\r\n"] {
            for method in ["GET /?", "POST /post"] {
                let mut raw = gateway.raw().await;
                raw.write(format!(
                    "{method} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{connection}{user}\r\n"
                ))
                .await;
                assert_eq!(raw.head().await.status, 200);
                let seen = origin.last();
                let users = ["x-user", "x_user", "x.user"].map(|name| seen.header(name));
                assert_eq!(users, ["guard", "", ""], "{method} {connection}{user}");
                for name in ["connection", "keep-alive", "proxy-connection", "te"] {
                    assert_eq!(seen.header(name), "", "{name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_plugin_and_the_log_see_what_the_origin_gets() {
    let (_origin, gateway) =
        guarded("{reads: [\"*\"], cookies: [\"*\"], rules: {/: {echo: true}}}").await;
    let mut raw = gateway.raw().await;
    raw.write(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: accept-language, User-Agent, te, x-a\r\nX-A: 1\r\n\
         Accept-Language: de\r\nUser-Agent: spy\r\nTE: trailers\r\nKeep-Alive: 1\r\nX-B: 1\r\n\r\n",
    )
    .await;
    let length = raw.head().await.header("content-length").parse().unwrap();
    let seen = String::from_utf8(raw.exactly(length).await).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["headers"], serde_json::json!(["host: a", "x-b: 1"]));
    let line = gateway
        .logged("the request", |line| {
            line.contains(r#""message":"request""#)
        })
        .await;
    assert!(line.contains(r#""agent":"""#), "{line}");
}

#[tokio::test]
async fn a_loader_and_explain_see_what_the_origin_gets() {
    let origin = telling(false).await;
    let gateway = Setup::new(&origin)
        .file("guest.wasm", guest::page(guest::READS_LANG))
        .top(
            "plugins",
            "{p: {file: guest.wasm, limits: {load_timeout: 10m}}}",
        )
        .route("{name: page, match: {path: /page}, loader: {plugin: p}}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    let named = "Connection: x-lang\r\nX-Lang: de\r\n";
    let explained = gateway
        .admin(
            http::Method::POST,
            "/v1/explain",
            r#"{"url": "http://a/page", "headers": {"connection": "x-lang", "x-lang": "de"}}"#,
        )
        .await;
    assert!(!explained.text.contains("x-lang"), "{}", explained.text);
    let labels = [("route", "page"), ("plugin", "p")];
    let unkeyed = || gateway.metric("lamina_plugin_unkeyed_total", &labels);
    get(&gateway, "/page", "HTTP/1.1", named).await;
    assert_eq!(unkeyed().await, 0.0, "the loader did not see it");
    get(&gateway, "/page?", "HTTP/1.1", "X-Lang: de\r\n").await;
    assert_eq!(unkeyed().await, 1.0, "it reads the field");
}

#[tokio::test]
async fn nodes_that_share_redis_share_no_poison() {
    let redis = Redis::start().await;
    let origin = telling(true).await;
    let l2 = redis_at(&redis.url());
    let (one, other) = (
        over(&origin, &l2, "{}").await,
        over(&origin, &l2, "{}").await,
    );
    let path = "/accept-language/x";
    let named = "Connection: accept-language\r\nAccept-Language: de\r\n";
    assert_eq!(get(&one, path, "HTTP/1.1", named).await, "[]");
    written(&one, 1.0).await;
    let german = "Accept-Language: de\r\n";
    assert_eq!(get(&other, path, "HTTP/1.1", german).await, "[de]");
    assert_eq!(get(&one, path, "HTTP/1.1", german).await, "[de]");
}

#[tokio::test]
async fn a_wish_for_trailers_goes_along_and_selects_nothing_that_others_get() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/varies" => Reply::fresh(format!("[{}]", seen.header("te"))).header("vary", "te"),
        _ => Reply::fresh("x"),
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    for client in [gateway.client(), gateway.client_http2()] {
        for (te, told) in [
            ("trailers", "[trailers]"),
            ("gzip;q=0.5, Trailers", "[trailers]"),
        ] {
            // HTTP/2 allows no other value.
            let te = if client.get("/x").await.version == Version::HTTP_2 {
                "trailers"
            } else {
                te
            };
            let asked = client.request("/varies").header("te", te).send().await;
            assert_eq!(asked.text(), told);
            assert_eq!(
                client.get("/varies").await.text(),
                "[]",
                "no key holds the wish"
            );
        }
    }
}

#[tokio::test]
async fn http_1_0_has_no_upgrade() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin).start().await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    for _ in 0..2 {
        get(&gateway, "/", "HTTP/1.0", upgrade).await;
        assert_eq!(origin.last().header("upgrade"), "");
    }
    assert_eq!(origin.count(), 1, "RFC 9110 §7.8: it is a plain request");
}

#[tokio::test]
async fn trailers_that_connection_names_or_that_pose_end_here() {
    let origin = Origin::start(|asked| async move {
        use http_body_util::BodyExt;
        let body = asked.body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let mut names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        Reply::ok(names.join(" "))
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let mut raw = gateway.raw().await;
    raw.write(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nTrailer: x-sum, x-hop\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Hop: 1\r\n\
         X_Original_URL: /admin\r\nX-Rewrite-URL: /admin\r\nForwarded: for=1.1.1.1\r\n\r\n",
    )
    .await;
    let length = raw.head().await.header("content-length").parse().unwrap();
    assert_eq!(raw.exactly(length).await, b"x-sum");
}

#[tokio::test]
async fn what_an_origins_connection_names_is_gone_for_the_plugin_the_cache_and_the_client() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/plugin" => Reply::fresh("x")
            .header("connection", "x-hop")
            .header("x-hop", "the origin's"),
        _ => Reply::fresh("x")
            .header(
                "connection",
                "vary, cache-control, set-cookie, surrogate-key",
            )
            .header("vary", "x-lang")
            .header("surrogate-key", "tag"),
    })
    .await;
    let config = "{/plugin: {set: {x-hop: \"the plugin's\", proxy-connection: a}}}";
    let gateway = Setup::new(&origin)
        .file("answerer.wasm", guest::built("answerer"))
        .top(
            "plugins",
            &format!(
                "{{p: {{file: answerer.wasm, config: {config}, limits: {{hook_timeout: 10s}}}}}}"
            ),
        )
        .route("{name: site, upstream: origin, response: {plugin: p}}")
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.get("/plugin").await.header("x-hop"), "the plugin's");
    }
    let german = || client.request("/varied").header("x-lang", "de");
    client.get("/varied").await;
    assert!(
        !german().send().await.is_hit(),
        "Vary is for every recipient"
    );
    assert!(german().send().await.is_hit());
    gateway.purge(serde_json::json!({"tag": "tag"})).await;
    assert!(!german().send().await.is_hit());
}

#[tokio::test]
async fn a_switch_of_protocols_carries_nothing_of_the_origins_connection() {
    let origin = Origin::start(|_| async {
        Reply::upgrade("echo", |_| async {})
            .header("keep-alive", "timeout=5")
            .header("connection", "x-hop")
            .header("x-hop", "1")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let mut raw = gateway.raw().await;
    raw.write(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, Upgrade\r\nX-A: 1\r\nUpgrade: echo\r\n\r\n",
    )
    .await;
    let head = raw.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(
        (head.header("x-hop"), head.header("keep-alive")),
        ("", ""),
        "{}",
        head.text
    );
    assert_eq!(head.header("upgrade"), "echo");
    assert_eq!(origin.last().header("x-a"), "");
    assert_eq!(origin.last().version, Version::HTTP_11);
}
