//! What rules of routes do to answers over time: after a reload, on hits, with purges and stale
//! copies, and what is told of it. What one request shows is in `rules_table`.

use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

/// One route for everything, with these keys.
fn site(keys: &str) -> String {
    format!("{{name: site, upstream: origin, {keys}}}")
}

async fn log_line(gateway: &Gateway, path: &str) -> Value {
    let path = format!("\"path\":\"{path}\"");
    let line = gateway
        .logged("the line of the request", |line| line.contains(&path))
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    line.get("fields").cloned().unwrap_or(line)
}

/// O2.
#[tokio::test]
async fn rules_for_answers_change_at_once_and_are_never_stored() {
    let origin = Origin::pages(|seen| match seen.headers.contains_key("if-none-match") {
        true => Reply::status_only(304).header("etag", "\"e\""),
        false => Reply::fresh("x")
            .header("server", "nginx")
            .header("etag", "\"e\""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let disk = format!(
        "{{l2: {{disk: {{path: \"{}\"}}}}}}",
        folder.path().join("l2").display()
    );
    let with = |keys: &str| Setup::new(&origin).top("cache", &disk).route(&site(keys));
    let one = with("headers: {response: {remove: [server], set: {x-a: one}}}");
    // Each process has a port of its own, which the key of a URL without a name would hold.
    let ask = |gateway: &Gateway| gateway.client().request("/a").host("site.test").send();
    let mut gateway = one.start().await;
    let first = ask(&gateway).await;
    assert_eq!((first.header("x-a"), first.has("server")), ("one", false));
    let two = with("headers: {response: {set: {x-a: two}}}, security_headers: basic");
    gateway.take_up(&two).await;
    let second = ask(&gateway).await;
    assert!(second.is_hit());
    assert_eq!((second.header("x-a"), origin.count()), ("two", 1));
    assert_eq!(second.header("x-content-type-options"), "nosniff");
    let written = [("outcome", "stored")];
    let metric = "lamina_l2_writes_total";
    gateway.metric_until(metric, &written, |n| n >= 1.0).await;
    gateway.terminate();
    gateway.ended(SOON).await;
    let gateway = with("").start().await;
    let third = ask(&gateway).await;
    assert_eq!(third.text(), "x");
    let loads = origin.seen();
    let loads = loads
        .iter()
        .filter(|seen| !seen.headers.contains_key("if-none-match"));
    assert_eq!(
        loads.count(),
        1,
        "the disk has the answer, and it is validated at most"
    );
    assert_eq!((third.has("x-a"), third.header("server")), (false, "nginx"));
    assert!(!third.has("x-content-type-options"));
}

/// `Vary` and the key are the client's.
#[tokio::test]
async fn a_field_that_tells_of_one_client_keeps_an_answer_from_the_others() {
    let origin = Origin::pages(|seen| {
        let told = seen
            .headers
            .get("x-tenant")
            .map(|tenant| tenant.to_str().unwrap());
        let reply = Reply::fresh(told.unwrap_or("nobody").to_owned());
        match seen.path.as_str() {
            "/varies" => reply.header("vary", "x-tenant"),
            _ => reply,
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .route(&site(
            "headers: {request: {set: {x-tenant: \"{header.x-user}\"}}}",
        ))
        .start()
        .await;
    let get = async |path: &str, user: &str| {
        let ask = gateway.client().request(path).header("x-user", user);
        ask.send().await
    };
    for user in ["ann", "bob", "ann"] {
        let answer = get("/varies", user).await;
        assert_eq!(answer.text(), user);
        assert!(!answer.is_hit());
        let status = answer.header("cache-status");
        let told = ["detail=request-rule", "detail=hit-for-miss"];
        assert!(
            told.iter().any(|detail| status.contains(detail)),
            "{status}"
        );
    }
    get("/same", "ann").await;
    assert!(
        get("/same", "bob").await.is_hit(),
        "the origin has said nothing"
    );
}

/// E2 (traefik/traefik#13054: alerts saw 200s).
#[tokio::test]
async fn metrics_and_the_log_tell_the_real_status_of_an_error_page() {
    let origin = Origin::pages(|_| Reply::status_only(500)).await;
    let gateway = Setup::new(&origin)
        .upstream("gone", "{targets: [\"http://127.0.0.1:1\"]}")
        .top("telemetry", "{log_format: json, access_log: on}")
        .route("{name: gone, match: {path: /gone}, upstream: gone, errors: [{file: sorry.html}]}")
        .route(&site(
            "errors: [{of: any, file: sorry.html}], request_id: on",
        ))
        .file("sorry.html", "<p>{status} {request_id}</p>")
        .start()
        .await;
    let get = async |path: &str| {
        let ask = gateway.client().request(path).header("accept", "text/html");
        ask.send().await
    };
    let gone = get("/gone").await;
    assert_eq!((gone.status.as_u16(), gone.text()), (502, "<p>502 </p>"));
    assert_eq!(log_line(&gateway, "/gone").await["status"], 502);
    let errors = [("route", "gone"), ("result", "error")];
    assert_eq!(gateway.metric("lamina_requests_total", &errors).await, 1.0);
    let broken = get("/broken").await;
    let id = broken.header("x-request-id").to_owned();
    assert_eq!(broken.status.as_u16(), 500);
    assert_eq!(broken.text(), format!("<p>500 {id}</p>"));
    let line = log_line(&gateway, "/broken").await;
    assert_eq!(
        (&line["status"], &line["request_id"]),
        (&json!(500), &json!(id))
    );
}

/// E3 and E4 over the protocols where nothing but the gateway keeps a body from a HEAD.
#[tokio::test]
async fn a_page_has_no_body_for_head_over_any_protocol() {
    let origin = Origin::pages(|_| Reply::status_only(500)).await;
    let setup = Setup::new(&origin)
        .upstream("gone", "{targets: [\"http://127.0.0.1:1\"]}")
        .route("{name: gone, match: {path: /gone}, upstream: gone, errors: [{file: sorry.html}]}")
        .route(&site("errors: [{of: any, file: sorry.html}]"))
        .file("sorry.html", "<p>sorry: {status}</p>");
    let secured = SecuredGateway::start(setup).await;
    let h3 = secured.client().await;
    let clear = Setup::new(&origin)
        .route(&site("errors: [{of: any, file: sorry.html}]"))
        .file("sorry.html", "<p>sorry: {status}</p>")
        .start()
        .await;
    let ask = |method: Method, path: &str| h3.ask(method, path).header("accept", "text/html");
    for (path, status) in [("/gone", 502), ("/broken", 500)] {
        let page = ask(Method::GET, path).send().await;
        let head = ask(Method::HEAD, path).send().await;
        assert_eq!(
            (page.status.as_u16(), head.status.as_u16()),
            (status, status)
        );
        assert_eq!(page.text(), format!("<p>sorry: {status}</p>"));
        assert_eq!(head.text(), "", "{path}");
        for field in ["content-type", "cache-control"] {
            assert_eq!(head.header(field), page.header(field), "{path} {field}");
        }
        assert!(["", page.header("content-length")].contains(&head.header("content-length")));
    }
    for client in [clear.client(), clear.client_http2()] {
        let ask = client.ask(Method::HEAD, "/broken");
        let head = ask.header("accept", "text/html").send().await;
        assert_eq!((head.status.as_u16(), head.text()), (500, ""));
        assert!(["", "17"].contains(&head.header("content-length")));
        // The connection is still one of answers and nothing else.
        let again = client.get("/broken").await;
        assert_eq!(again.text(), "500 internal error\n");
    }
}

/// SH1: only who has come over TLS is told to stay there.
#[tokio::test]
async fn strict_transport_is_for_those_who_came_over_tls() {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/own" => Reply::fresh("x").header("strict-transport-security", "max-age=7"),
        _ => Reply::fresh("x"),
    })
    .await;
    let route = site("security_headers: basic");
    let setup = Setup::new(&origin).route(&route);
    let clear = setup.clone().start().await;
    let secured = SecuredGateway::start(setup).await;
    let h3 = secured.client().await;
    for _ in 0..2 {
        assert!(
            !clear
                .client()
                .get("/")
                .await
                .has("strict-transport-security")
        );
        let told = h3.get("/").await;
        assert_eq!(told.header("strict-transport-security"), "max-age=31536000");
        let own = h3.get("/own").await;
        assert_eq!(own.header("strict-transport-security"), "max-age=7");
    }
}

/// RD1 and RD2: what a route answers by itself is in the log and in metrics, and is no large file.
#[tokio::test]
async fn what_a_route_answers_by_itself_is_logged_and_bounded() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = Setup::new(&origin)
        .top("telemetry", "{log_format: json, access_log: on}")
        .route("{name: old, match: {path: /old/*}, redirect: {to: \"/new/{path.2}\"}}")
        .route("{name: robots, match: {path: /robots.txt}, respond: {file: robots.txt}}")
        .route("{name: slashes, trailing_slash: add, upstream: origin}");
    let gateway = setup
        .clone()
        .file("robots.txt", "x".repeat(1 << 20))
        .start()
        .await;
    // No cache is asked, so none says what it did.
    let client = gateway.client().unchecked();
    for (path, route, status) in [
        ("/old/7", "old", 308),
        ("/robots.txt", "robots", 200),
        ("/docs", "slashes", 308),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
        let line = log_line(&gateway, path).await;
        assert_eq!(
            (&line["status"], &line["route"]),
            (&json!(status), &json!(route))
        );
        let passed = [("route", route), ("result", "pass")];
        assert_eq!(gateway.metric("lamina_requests_total", &passed).await, 1.0);
    }
    assert_eq!(origin.count(), 0);
    let (_dir, config) = setup.file("robots.txt", "x".repeat((1 << 20) + 1)).write();
    let refused = e2e::cli::run(&["validate", "-c", config.to_str().unwrap()]);
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.output().contains("robots.txt"),
        "{}",
        refused.output()
    );
}

/// A call reads `grpc-status`, whatever pages a route has.
#[tokio::test]
async fn a_call_gets_no_page() {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/pkg.Broken/Call" => Reply::status_only(500),
        _ => Reply::ok("").header("grpc-status", "5"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .upstream("gone", "{targets: [\"http://127.0.0.1:1\"]}")
        .route("{name: gone, match: {path: /pkg.Gone/*}, upstream: gone, errors: [{file: sorry.html}]}")
        .route(&site("errors: [{of: any, file: sorry.html}]"))
        .file("sorry.html", "sorry")
        .start()
        .await;
    let ask = |path: &str, kind: &str| {
        let client = gateway.client_http2().uncached();
        let ask = client.ask(Method::POST, path).header("content-type", kind);
        ask.header("accept", "text/html").body("x").send()
    };
    let call = "application/grpc";
    let told = ask("/pkg.Gone/Call", call).await;
    let (status, grpc) = (told.status.as_u16(), told.header("grpc-status"));
    assert_eq!((status, grpc, told.text()), (200, "14", ""));
    assert_eq!(told.header("content-type"), call);
    let broken = ask("/pkg.Broken/Call", call).await;
    assert_eq!((broken.status.as_u16(), broken.text()), (500, ""));
    assert_eq!(ask("/pkg.Any/Call", call).await.header("grpc-status"), "5");
    let plain = ask("/pkg.Gone/Call", "application/json").await;
    assert_eq!((plain.status.as_u16(), plain.text()), (502, "sorry"));
}

/// E6.
#[tokio::test]
async fn a_stale_copy_beats_an_error_page() {
    let mut origin = Origin::pages(|_| {
        Reply::ok("x")
            .header("cache-control", "max-age=60, stale-if-error=600")
            .header("age", "100")
    })
    .await;
    let gateway = Setup::new(&origin)
        .route(&site("errors: [{of: any, file: sorry.html}]"))
        .file("sorry.html", "sorry")
        .start()
        .await;
    gateway.client().get("/a").await;
    origin.stop().await;
    let answer = gateway
        .client()
        .request("/a")
        .header("accept", "text/html")
        .send()
        .await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "x"));
    let other = gateway
        .client()
        .request("/b")
        .header("accept", "text/html")
        .send()
        .await;
    assert_eq!((other.status.as_u16(), other.text()), (502, "sorry"));
}

/// ID1.
#[tokio::test]
async fn a_request_has_one_name_everywhere() {
    let origin = Origin::pages(|_| Reply::fresh("x").header("x-request-id", "the-origins")).await;
    let trusting = "127.0.0.1/32";
    for (trusted, given, kept) in [
        ("10.0.0.0/8", "forged", false),
        (trusting, "of-a-proxy-1", true),
        (trusting, "<script>", false),
    ] {
        let gateway = Setup::new(&origin)
            .listener("trusted_proxies", &format!("[{trusted}]"))
            .top("telemetry", "{log_format: json, access_log: on}")
            .route(&site("request_id: on"))
            .start()
            .await;
        origin.forget();
        let get = async |path: &str| {
            let ask = gateway.client().request(path).header("x-request-id", given);
            ask.send().await
        };
        let miss = get("/a?1").await;
        let id = miss.header("x-request-id").to_owned();
        assert_eq!(origin.last().headers["x-request-id"], id);
        assert_eq!(id == given, kept, "{id}");
        let hit = get("/a?1").await;
        assert!(hit.is_hit());
        let of_hit = hit.header("x-request-id").to_owned();
        assert_eq!(of_hit == id, kept, "a hit has its own");
        if !kept {
            let octets = id.as_bytes();
            assert_eq!((octets.len(), octets[14]), (36, b'7'), "{id}");
        }
        for id in [&id, &of_hit] {
            gateway
                .logged("the line with the id", |line| line.contains(&**id))
                .await;
        }
    }
}

/// RW1, RW2: everything else goes by the client's URL.
#[tokio::test]
async fn purges_and_invalidations_find_what_was_rewritten() {
    let origin = Origin::pages(|seen| match seen.method {
        Method::POST => Reply::ok("done").header("location", "/v2/other"),
        _ => Reply::fresh("x"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("telemetry", "{log_format: json, access_log: on}")
        .route(&site("rewrite: {strip_prefix: /api, add_prefix: /v2}"))
        .start()
        .await;
    let client = gateway.client();
    let host = "shop.example";
    let get = async |path: &str| client.request(path).host(host).send().await.is_hit();
    let stored = async || {
        for path in ["/api/a", "/api/other", "/api/third"] {
            get(path).await;
            assert!(get(path).await, "{path}");
        }
    };
    stored().await;
    gateway
        .purge(json!({"url": "http://shop.example/api/a"}))
        .await;
    assert!(!get("/api/a").await);
    stored().await;
    let posted = client.ask(Method::POST, "/api/a").host(host).send().await;
    assert_eq!(posted.header("location"), "/api/other");
    assert!(get("/api/third").await);
    assert!(!get("/api/a").await, "its own URL");
    assert!(!get("/api/other").await, "what Location names");
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.path.starts_with("/v2/"))
    );
    assert_eq!(log_line(&gateway, "/api/a").await["route"], "site");
    // The last one: all lines before it are there.
    get("/api/last").await;
    log_line(&gateway, "/api/last").await;
    let tells = |line: &String| line.contains("\"path\":\"/v2");
    assert!(
        !gateway.log().iter().any(tells),
        "the log has the client's URLs alone"
    );
}

/// RD2.
#[tokio::test]
async fn a_file_is_read_at_the_start_and_by_a_reload() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let with = |text: &str| {
        Setup::new(&origin)
            .route("{name: robots, match: {path: /robots.txt}, respond: {file: robots.txt}}")
            .route("{name: site, upstream: origin}")
            .file("robots.txt", text)
    };
    let gateway = with("one").start().await;
    let client = gateway.client().uncached();
    let first = client.get("/robots.txt").await;
    assert_eq!(first.text(), "one");
    with("two").write_into(gateway.dir());
    assert_eq!(client.get("/robots.txt").await.text(), "one");
    gateway.take_up(&with("two")).await;
    let second = client.get("/robots.txt").await;
    assert_eq!(second.text(), "two");
    assert_ne!(first.header("etag"), second.header("etag"));
    std::fs::remove_file(gateway.dir().join("robots.txt")).unwrap();
    let refused = gateway.reload().await;
    assert_eq!(refused.keys(), ["routes[0].respond.file"]);
    assert_eq!(client.get("/robots.txt").await.text(), "two");
}

/// What a file says that a route names is part of what a plan compares.
#[tokio::test]
async fn files_of_routes_are_compared_by_their_content() {
    const FILES: [(&str, &str, &str); 5] = [
        ("robots.txt", "robots", "respond.file"),
        ("sorry.html", "shop", "errors"),
        ("closed.html", "shop", "maintenance.file"),
        ("users", "inside", "auth.basic"),
        ("keys.json", "api", "auth.jwt.keys"),
    ];
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let hash = "$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu";
    let key = |id: &str| {
        // The public key of RFC 8037, appendix A.2.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x}]}).to_string()
    };
    let content = |file: &str, edition: &str| match file {
        "users" => format!("{edition}:{hash}\n"),
        "keys.json" => key(edition),
        _ => format!("<p>{edition}</p>"),
    };
    let setup = Setup::new(&origin)
        .route("{name: robots, match: {path: /robots.txt}, respond: {file: robots.txt}}")
        .route(
            "{name: shop, match: {path: /shop}, upstream: origin, errors: [{file: sorry.html}], \
             maintenance: {file: closed.html}}",
        )
        .route("{name: inside, match: {path: /inside}, upstream: origin, auth: {basic: users}}")
        .route(
            "{name: api, match: {path: /api}, upstream: origin, \
             auth: {jwt: {keys: keys.json, issuer: a, audience: [b], algorithms: [EdDSA]}}}",
        );
    let with_files = |setup: Setup, edition: &str| {
        let files = FILES.iter();
        files.fold(setup, |setup, (file, ..)| {
            setup.file(file, content(file, edition))
        })
    };
    let gateway = with_files(setup, "first").start().await;
    let unchanged = gateway.reload().await.said;
    assert_eq!(unchanged["changes"]["routes"]["changed"], json!({}));
    for (file, route, key) in FILES {
        std::fs::write(gateway.dir().join(file), content(file, "second")).unwrap();
        let taken = gateway.reload().await;
        assert_eq!(taken.status, 200, "{}", taken.said);
        let changed = &taken.said["changes"]["routes"]["changed"];
        assert_eq!(changed.as_object().unwrap().len(), 1, "{file}: {changed}");
        assert_eq!(changed[route][0]["key"], key, "{file}: {changed}");
        assert_ne!(
            taken.said["hash_before"], taken.said["hash_after"],
            "{file}"
        );
        assert!(
            !taken.said.to_string().contains("second"),
            "{file}: no content is shown"
        );
    }
}

async fn switch(gateway: &Gateway, body: Value) -> Value {
    let path = "/v1/routes/site/maintenance";
    let answer = gateway.admin(Method::POST, path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// MT1.
#[tokio::test]
async fn a_route_is_closed_at_run_time_and_stays_so_over_a_reload() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin}");
    let gateway = setup.start().await;
    let client = gateway.client().uncached();
    let status = async |path: &str| client.get(path).await.status.as_u16();
    assert_eq!(status("/a").await, 200);
    let said = switch(&gateway, json!({"for": "30m"})).await;
    assert_eq!(
        (&said["maintenance"], &said["by"]),
        (&json!("on"), &json!("operator"))
    );
    let closed = client.get("/a").await;
    assert_eq!(closed.status.as_u16(), 503);
    let seconds: u64 = closed.header("retry-after").parse().unwrap();
    assert!((1_000..=1_800).contains(&seconds), "{seconds}");
    assert_eq!(closed.header("cache-control"), "no-store");
    gateway
        .take_up(&setup.clone().top("defaults", "{ttl: 5s}"))
        .await;
    assert_eq!(status("/a").await, 503);
    switch(&gateway, json!({"for": "30m", "allow": ["127.0.0.0/8"]})).await;
    assert_eq!(status("/a").await, 200);
    switch(&gateway, json!({"for": "1s"})).await;
    wait_for("its time is over", SOON, || async {
        (client.get("/a").await.status.as_u16() == 200).then_some(())
    })
    .await;
    switch(&gateway, json!({})).await;
    assert_eq!(status("/a").await, 503);
    let said = switch(&gateway, json!({"state": "configured"})).await;
    assert_eq!(said["by"], "configuration");
    assert_eq!(status("/a").await, 200);
    let bad = "{\"for\": \"0s\"}";
    let path = "/v1/routes/site/maintenance";
    assert_eq!(gateway.admin(Method::POST, path, bad).await.status, 400);
    // A list is no order, although its values could be read as those of one.
    for list in ["[]", "[\"on\"]"] {
        assert_eq!(gateway.admin(Method::POST, path, list).await.status, 400);
        assert_eq!(status("/a").await, 200, "{list}");
    }
    let path = "/v1/routes/none/maintenance";
    assert_eq!(gateway.admin(Method::POST, path, "{}").await.status, 404);
}

#[tokio::test]
async fn a_route_is_closed_from_the_command_line() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client().uncached();
    let admin = gateway.admin.to_string();
    let run = |words: &[&str]| {
        let all = [&["maintenance", "site", "--admin", &admin], words].concat();
        let ran = e2e::cli::run(&all);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        ran.stdout
    };
    let said = run(&["--for", "30m", "--allow", "10.0.0.0/8"]);
    assert!(
        said.starts_with("route site: maintenance is on for "),
        "{said}"
    );
    assert_eq!(client.get("/a").await.status.as_u16(), 503);
    let said = run(&["--state", "off"]);
    assert_eq!(said, "route site: maintenance is off, by the operator\n");
    assert_eq!(client.get("/a").await.status.as_u16(), 200);
}

/// MT2, MT3.
#[tokio::test]
async fn a_closed_route_serves_what_is_stored_and_no_purge_hides() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/stale" => Reply::ok("x")
            .header("cache-control", "max-age=60, stale-if-error=600")
            .header("age", "100"),
        _ => Reply::fresh("x"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .route(&site(
            "maintenance: {serve: cached}, policy: {request_directives: honor}",
        ))
        .start()
        .await;
    let client = gateway.client().uncached();
    let status = async |path: &str| client.get(path).await.status.as_u16();
    for path in ["/fresh", "/stale", "/purged"] {
        assert_eq!(status(path).await, 200);
    }
    let asked = origin.count();
    switch(&gateway, json!({})).await;
    assert!(client.get("/fresh").await.is_hit());
    let stale = client.get("/stale").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "x"));
    assert_eq!(stale.cache().detail.as_deref(), Some("maintenance"));
    let picky = client.request("/fresh").header("cache-control", "no-cache");
    assert_eq!(picky.send().await.status.as_u16(), 200);
    gateway.purge(json!({"prefix": "/purged"})).await;
    gateway.purge(json!({"pattern": "*/purged"})).await;
    assert_eq!(status("/purged").await, 503);
    assert_eq!(status("/other").await, 503);
    assert_eq!(client.post("/fresh", "").await.status.as_u16(), 503);
    assert_eq!(origin.count(), asked, "nobody was asked");
}

/// What is decided is told.
#[tokio::test]
async fn explain_and_plan_tell_the_rules() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let rules = "rewrite: {strip_prefix: /api}, headers: {request: {remove: [x-debug]}, response: \
                 {set: {x-a: one}}}, errors: [{statuses: [502]}], request_id: on, \
                 security_headers: basic";
    let old = "{name: old, match: {path: /old}, redirect: {to: /new}}";
    let setup = Setup::new(&origin).route(old).route(&site(rules));
    let gateway = setup.start().await;
    let explain = async |url: &str| {
        let body = json!({"url": url}).to_string();
        let answer = gateway.admin(Method::POST, "/v1/explain", &body).await;
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    let told = explain("http://shop.example/api/x").await;
    let expected = json!([
        "request id: x-request-id",
        "rewrite: without /api",
        "headers for the origin: without x-debug",
        "errors: text or JSON for 502 of the gateway",
        "security headers: basic",
        "headers of answers: with x-a",
    ]);
    assert_eq!(told["rules"], expected);
    let told = explain("http://shop.example/old").await;
    assert_eq!(told["decision"], "answered by a redirect, before the cache");
    let other = Setup::new(&origin)
        .route(&old.replace("/new", "/newer"))
        .route(&site(&rules.replace("one", "two")));
    let folder = gateway.dir().join("next");
    std::fs::create_dir(&folder).unwrap();
    let plan = gateway.plan(&other.write_into(&folder)).await;
    assert_eq!(plan.status, 200, "{}", plan.said);
    let changed = &plan.said["changes"]["routes"]["changed"];
    assert_eq!(changed["old"][0]["key"], "redirect.to");
    assert_eq!(changed["site"][0]["key"], "headers.response.set.x-a");
}

/// Issue 18: RFC 9111 §3.5 holds for the `Authorization` that the origin gets.
#[tokio::test]
async fn an_authorization_made_of_the_client_is_one() {
    let origin = Origin::pages(|seen| {
        let text = seen.header("authorization").to_owned();
        let age = match seen.path.as_str() {
            "/public" => "public, max-age=60",
            _ => "max-age=60",
        };
        Reply::ok(text).header("cache-control", age)
    })
    .await;
    let made = "headers: {request: {set: {authorization: \"Bearer {header.x-token}\"}}}";
    let get = async |gateway: &Gateway, path: &str, token: &str| {
        let ask = gateway.client().request(path).header("x-token", token);
        ask.send().await
    };
    let gateway = Setup::new(&origin).route(&site(made)).start().await;
    for token in ["ann", "bob", "ann"] {
        let answer = get(&gateway, "/me", token).await;
        assert_eq!(answer.text(), format!("Bearer {token}"));
        assert!(!answer.is_hit());
    }
    get(&gateway, "/public", "ann").await;
    assert!(get(&gateway, "/public", "bob").await.is_hit(), "it says so");
    let keyed = format!("{made}, key: {{headers: [x-token]}}");
    let gateway = Setup::new(&origin).route(&site(&keyed)).start().await;
    for (token, hit) in [("ann", false), ("bob", false), ("ann", true)] {
        let answer = get(&gateway, "/me", token).await;
        assert_eq!(
            (answer.text(), answer.is_hit()),
            (&*format!("Bearer {token}"), hit)
        );
    }
}

/// Issue 18: errors went out as something to keep.
#[tokio::test]
async fn no_rule_makes_an_error_storable() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/gone" => Reply::hang_up(),
        "/bad" => Reply::ok("bad").status(500),
        "/none" => Reply::ok("none")
            .status(404)
            .header("surrogate-control", "max-age=600")
            .header("x-accel-expires", "600")
            .header("digest", "sha-256=x"),
        _ => Reply::ok("x").header("cache-control", "no-store"),
    })
    .await;
    let rules = "headers: {response: {set: {cache-control: \"public, max-age=60\", cdn-cache-control: max-age=600}}}";
    let gateway = Setup::new(&origin).route(&site(rules)).start().await;
    for (path, said) in [("/gone", ""), ("/bad", ""), ("/a", "public, max-age=60")] {
        let answer = gateway.client().uncached().get(path).await;
        assert!(
            !answer.header("cache-control").contains("public") || path == "/a",
            "{path}"
        );
        assert_eq!(answer.has("cdn-cache-control"), !said.is_empty(), "{path}");
    }
    let paged = format!("{rules}, errors: [{{of: any}}]");
    let gateway = Setup::new(&origin).route(&site(&paged)).start().await;
    let answer = gateway.client().uncached().get("/none").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("cache-control")),
        (404, "no-store")
    );
    for name in [
        "surrogate-control",
        "x-accel-expires",
        "digest",
        "cdn-cache-control",
    ] {
        assert!(!answer.has(name), "{name}");
    }
}
