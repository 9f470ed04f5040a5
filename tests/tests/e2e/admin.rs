//! Who the admin listener answers: by which name it is asked, from which pages, with which
//! token; and what it tells about that.

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::h2raw::{self, H2};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use http::Method;
use lamina_edge::admin::config::AdminRight;
use lamina_edge::admin::table::{AdminAccess, AdminMethod, TABLE};
use serde_json::{Value, json};

const ALL: &str = "{\"all\": true}";
const JSON: &str = "Content-Type: application/json\r\n";

/// What came back for bytes of our own.
struct RawAnswer {
    status: u16,
    text: String,
}

/// A stored page behind a gateway.
async fn stored() -> (Origin, Gateway) {
    let (origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    gateway.client().get("/").await;
    (origin, gateway)
}

async fn is_stored(gateway: &Gateway) -> bool {
    gateway.client().get("/").await.is_hit()
}

/// Sends a request with these lines of its head, and reads to the end.
async fn ask(gateway: &Gateway, line: &str, fields: &str, body: &str) -> RawAnswer {
    let mut raw = RawConnection::open(gateway.admin).await;
    let length = match (line.starts_with("GET") || line.starts_with("HEAD"), body) {
        (true, "") => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let request = format!("{line}\r\n{fields}{length}Connection: close\r\n\r\n{body}");
    raw.write(request).await;
    let text = String::from_utf8_lossy(&raw.to_end().await).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    RawAnswer {
        status: status.unwrap_or_else(|| panic!("no status in {text:?}")),
        text,
    }
}

fn host(name: &str) -> String {
    format!("Host: {name}\r\n")
}

/// Every path of the table, and one that is not there.
fn paths() -> Vec<(&'static str, String)> {
    let method = |verb| match verb {
        AdminMethod::Get => "GET",
        AdminMethod::Post | AdminMethod::PostOrPurge | AdminMethod::PostOrDelete => "POST",
    };
    let all = TABLE
        .iter()
        .map(|e| (method(e.verb), e.path.replace("{name}", "p")));
    all.chain([("GET", "/nothing".to_owned())]).collect()
}

#[tokio::test]
async fn a_foreign_host_gets_no_answer_on_any_path() {
    let (_origin, gateway) = stored().await;
    for (method, path) in paths() {
        for name in [
            "evil.example",
            "localhost.evil.example:80",
            "0.0.0.0",
            "10.9.8.7",
        ] {
            let fields = host(name) + JSON;
            let said = ask(&gateway, &format!("{method} {path} HTTP/1.1"), &fields, ALL).await;
            assert_eq!(
                said.status, 421,
                "{method} {path} for {name}: {}",
                said.text
            );
            assert!(said.text.contains("admin.hosts"), "{}", said.text);
        }
        let old = ask(&gateway, &format!("{method} {path} HTTP/1.0"), JSON, ALL).await;
        assert_eq!(old.status, 421, "{path} without Host: {}", old.text);
        let target = format!("{method} http://evil.example{path} HTTP/1.1");
        let absolute = ask(&gateway, &target, &(host("evil.example") + JSON), ALL).await;
        assert_eq!(absolute.status, 421, "{path}: {}", absolute.text);
        let mut http2 = H2::open(gateway.admin).await;
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", path.as_str()),
            (":authority", "evil.example"),
        ];
        http2
            .write(h2raw::headers(1, h2raw::flag::END_STREAM, &fields))
            .await;
        match http2.end_of(1).await {
            h2raw::End::Answered { status, .. } => assert_eq!(status, 421, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert!(is_stored(&gateway).await);
}

#[tokio::test]
async fn loopback_names_whatever_their_port_are_ours() {
    let (_origin, gateway) = stored().await;
    for name in [
        "localhost",
        "LocalHost:1",
        "localhost.:9180",
        "a.localhost",
        "127.0.0.1:9180",
        "127.9.9.9",
        "[::1]:9180",
    ] {
        for version in ["1.0", "1.1"] {
            let line = format!("GET /livez HTTP/{version}");
            assert_eq!(
                ask(&gateway, &line, &host(name), "").await.status,
                200,
                "{name}"
            );
        }
    }
    let said = ask(
        &gateway,
        "POST /v1/purge HTTP/1.1",
        &(host("localhost") + JSON),
        ALL,
    )
    .await;
    assert_eq!(said.status, 200, "{}", said.text);
    assert!(!is_stored(&gateway).await);
}

#[tokio::test]
async fn configured_names_and_the_address_of_the_listener_are_ours() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let admin = "{address: \"0.0.0.0:0\", token: opensesame, \
                 hosts: [\"*.Admin.example\", node-1]}";
    let gateway = Setup::new(&origin).top("admin", admin).start().await;
    for (name, status) in [
        ("a.admin.example:80", 200),
        ("A.ADMIN.EXAMPLE.", 200),
        ("node-1", 200),
        ("0.0.0.0", 200),
        ("127.0.0.1", 200),
        ("admin.example", 421),
        ("a.admin.example.evil", 421),
        ("node-11", 421),
        ("0.0.0.1", 421),
    ] {
        let said = ask(&gateway, "GET /livez HTTP/1.1", &host(name), "").await;
        assert_eq!(said.status, status, "{name}: {}", said.text);
    }
}

/// Each is something that a web page can send without being allowed to, or what browsers
/// say about its sender.
#[tokio::test]
async fn what_a_web_page_could_have_sent_changes_nothing() {
    let (_origin, gateway) = stored().await;
    let ours = host(&gateway.admin.to_string());
    let own_origin = format!("Origin: http://{}\r\n", gateway.admin);
    let deliberate = format!("{ours}{JSON}");
    let cases = [
        (format!("{ours}Content-Type: text/plain\r\n"), 415),
        (
            format!("{ours}Content-Type: application/x-www-form-urlencoded\r\n"),
            415,
        ),
        (
            format!("{ours}Content-Type: multipart/form-data; boundary=x\r\n"),
            415,
        ),
        (
            format!("{ours}Content-Type: text/plain; application/json\r\n"),
            415,
        ),
        (
            format!("{ours}Content-Type: application/json\r\nContent-Type: text/plain\r\n"),
            415,
        ),
        (ours.clone(), 415),
        (format!("{ours}X-Lamina-Admin: 1\r\n"), 415),
        (format!("{deliberate}Sec-Fetch-Site: cross-site\r\n"), 403),
        (format!("{deliberate}Sec-Fetch-Site: same-site\r\n"), 403),
        (
            format!("{deliberate}Sec-Fetch-Site: cross-site\r\n{own_origin}"),
            403,
        ),
        (
            format!(
                "{deliberate}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
            ),
            403,
        ),
        (format!("{deliberate}Origin: null\r\n"), 403),
        (format!("{deliberate}Origin: http://evil.example\r\n"), 403),
        (format!("{deliberate}Origin: http://127.0.0.1:1\r\n"), 403),
        (
            format!("{deliberate}{own_origin}Origin: http://evil.example\r\n"),
            403,
        ),
        (
            format!("{deliberate}X-Lamina-Admin: 1\r\nOrigin: http://localhost\r\n"),
            403,
        ),
    ];
    for (fields, status) in &cases {
        for line in [
            "POST /v1/purge HTTP/1.1",
            "POST /v1/plugins/p/quarantine HTTP/1.1",
        ] {
            let said = ask(&gateway, line, fields, ALL).await;
            assert_eq!(said.status, *status, "{line} {fields}: {}", said.text);
        }
    }
    let bare = ask(&gateway, "POST /v1/plugins/p/resume HTTP/1.1", &ours, "").await;
    assert_eq!(bare.status, 403, "{}", bare.text);
    assert!(bare.text.contains("X-Lamina-Admin"), "{}", bare.text);
    assert!(is_stored(&gateway).await);
    let field = format!("{ours}X-Lamina-Admin: 1\r\n{own_origin}Sec-Fetch-Site: same-origin\r\n");
    let known = ask(&gateway, "POST /v1/plugins/p/resume HTTP/1.1", &field, "").await;
    assert_eq!(
        known.status, 404,
        "it came as far as the plugin: {}",
        known.text
    );
    let own = format!("{deliberate}{own_origin}Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(
        ask(&gateway, "POST /v1/purge HTTP/1.1", &own, ALL)
            .await
            .status,
        200
    );
    assert!(!is_stored(&gateway).await);
}

#[tokio::test]
async fn pages_of_other_sites_read_nothing_private_and_are_allowed_nothing() {
    let (_origin, gateway) = stored().await;
    let ours = host("localhost");
    for path in ["/v1/plugins/p/calls", "/v1/l2/keys"] {
        for method in ["GET", "HEAD"] {
            let line = format!("{method} {path} HTTP/1.1");
            for foreign in [
                "Sec-Fetch-Site: cross-site\r\n",
                "Origin: http://evil.example\r\n",
            ] {
                let said = ask(&gateway, &line, &format!("{ours}{foreign}"), "").await;
                assert_eq!(said.status, 403, "{line} {foreign}: {}", said.text);
            }
            // There is no such plugin and no second tier.
            let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
            let said = ask(&gateway, &line, &format!("{ours}{link}"), "").await;
            assert_eq!(said.status, 404, "a link is followed: {}", said.text);
        }
    }
    for (_, path) in paths() {
        let preflight = format!(
            "{ours}Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type, x-lamina-admin\r\n\
             Access-Control-Request-Private-Network: true\r\n"
        );
        let said = ask(
            &gateway,
            &format!("OPTIONS {path} HTTP/1.1"),
            &preflight,
            "",
        )
        .await;
        assert!(matches!(said.status, 404 | 405), "{path}: {}", said.text);
        assert!(
            !said.text.to_lowercase().contains("access-control"),
            "{}",
            said.text
        );
    }
}

#[tokio::test]
async fn other_methods_do_nothing() {
    let (_origin, gateway) = stored().await;
    let fields = host("localhost") + JSON;
    for method in [
        "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "post",
    ] {
        let said = ask(
            &gateway,
            &format!("{method} /v1/purge HTTP/1.1"),
            &fields,
            ALL,
        )
        .await;
        assert_eq!(said.status, 405, "{method}: {}", said.text);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        for path in ["/livez", "/metrics", "/v1/l2/keys"] {
            let said = ask(&gateway, &format!("{method} {path} HTTP/1.1"), &fields, ALL).await;
            assert_eq!(said.status, 405, "{method} {path}: {}", said.text);
        }
    }
    assert!(is_stored(&gateway).await);
}

#[tokio::test]
async fn every_answer_keeps_itself_out_of_other_sites_pages() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let admin = "{address: \"127.0.0.1:0\", token: opensesame}";
    let gateway = Setup::new(&origin).top("admin", admin).start().await;
    let ours = host("localhost");
    for (line, fields, status) in [
        ("GET /livez", ours.clone(), 200),
        ("HEAD /metrics", ours.clone(), 200),
        ("GET /metrics", ours.clone(), 200),
        ("GET /v1/plugins", ours.clone(), 200),
        ("GET /nothing", ours.clone(), 404),
        ("OPTIONS /v1/purge", ours.clone(), 405),
        ("POST /v1/purge", format!("{ours}{JSON}"), 401),
        ("GET /v1/l2/keys", ours.clone(), 401),
        ("POST /v1/purge", ours.clone(), 415),
        ("GET /metrics", host("evil.example"), 421),
    ] {
        let body = if line.starts_with("POST") { ALL } else { "" };
        let said = ask(&gateway, &format!("{line} HTTP/1.1"), &fields, body).await;
        assert_eq!(said.status, status, "{line}: {}", said.text);
        let head = said.text.split("\r\n\r\n").next().unwrap().to_lowercase();
        for field in [
            "cross-origin-resource-policy: same-origin",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        ] {
            assert!(head.contains(field), "{line} lacks {field}: {head}");
        }
        assert!(!head.contains("access-control"), "{line}: {head}");
    }
}

/// One token for each right, and one for all.
async fn with_tokens() -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let named = AdminRight::ALL.map(|right| {
        let name = right.as_str();
        format!("{{name: may-{name}, token_file: {name}, can: [{name}]}}")
    });
    let admin = format!(
        "{{address: \"127.0.0.1:0\", token: the-one-for-all, tokens: [{}]}}",
        named.join(", ")
    );
    let setup = AdminRight::ALL
        .iter()
        .fold(Setup::new(&origin), |setup, right| {
            let name = right.as_str();
            setup.file(name, format!("token-of-{name}\n"))
        });
    let gateway = setup.top("admin", &admin).start().await;
    (origin, gateway)
}

#[tokio::test]
async fn each_request_wants_its_right_and_no_other() {
    let (_origin, gateway) = with_tokens().await;
    for entry in TABLE {
        let path = entry.path.replace("{name}", "p");
        let line = match entry.verb {
            AdminMethod::Get => format!("GET {path} HTTP/1.1"),
            AdminMethod::Post | AdminMethod::PostOrPurge | AdminMethod::PostOrDelete => {
                format!("POST {path} HTTP/1.1")
            }
        };
        let fields = |token: &str| match token {
            "" => host("localhost") + JSON,
            token => format!(
                "{}{JSON}Authorization: Bearer {token}\r\n",
                host("localhost")
            ),
        };
        let body = if entry.verb != AdminMethod::Get {
            "{}"
        } else {
            ""
        };
        let needed = match entry.access {
            AdminAccess::Needs(right) | AdminAccess::NeedsToken(right) => right,
            AdminAccess::Open => {
                let said = ask(&gateway, &line, &fields(""), body).await;
                assert!(!matches!(said.status, 401 | 403), "{line}: {}", said.text);
                continue;
            }
        };
        for wrong in ["", "token-of", "token-of-nobody", "token-of-purge2"] {
            let said = ask(&gateway, &line, &fields(wrong), body).await;
            assert_eq!(said.status, 401, "{line} with {wrong:?}: {}", said.text);
        }
        for right in AdminRight::ALL {
            let token = format!("token-of-{}", right.as_str());
            let said = ask(&gateway, &line, &fields(&token), body).await;
            if right == needed {
                assert!(!matches!(said.status, 401 | 403), "{line}: {}", said.text);
            } else {
                assert_eq!(said.status, 403, "{line} with {token}: {}", said.text);
                let missing = format!("lacks the right `{}`", needed.as_str());
                assert!(said.text.contains(&missing), "{}", said.text);
            }
        }
        let said = ask(&gateway, &line, &fields("the-one-for-all"), body).await;
        assert!(!matches!(said.status, 401 | 403), "{line}: {}", said.text);
    }
}

/// The audit lines about requests with this path so far.
fn audited(gateway: &Gateway, what: &str) -> Vec<Value> {
    let lines = gateway.log();
    let lines = lines.iter().filter(|line| line.contains("admin action"));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["what"] == what).collect()
}

#[tokio::test]
async fn each_action_is_told_with_who_what_from_where_and_what_came_of_it() {
    let (_origin, gateway) = with_tokens().await;
    let token = |token: &str| {
        format!(
            "{}{JSON}Authorization: Bearer {token}\r\n",
            host("localhost")
        )
    };
    let line = "POST /v1/purge HTTP/1.1";
    ask(
        &gateway,
        line,
        &token("token-of-purge"),
        "{\"tag\": \"news\"}",
    )
    .await;
    ask(&gateway, line, &token("the-one-for-all"), "{\"bad\": 1}").await;
    ask(&gateway, line, &token("token-of-read"), ALL).await;
    ask(&gateway, line, &token("secret-but-wrong"), ALL).await;
    ask(&gateway, line, &(host("localhost") + JSON), ALL).await;
    ask(
        &gateway,
        "POST /v1/purge?token=secret HTTP/1.1",
        &(host("evil.example") + JSON),
        ALL,
    )
    .await;
    gateway
        .logged("the last refusal", |line| {
            line.contains("admin action") && line.contains("421")
        })
        .await;
    let told = audited(&gateway, "POST /v1/purge");
    let told: Vec<Value> = told
        .iter()
        .map(|line| json!([line["who"], line["outcome"], line["status"], line["asked"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["may-purge", "done", 200, "{\"tag\": \"news\"}"]),
            json!(["admin", "failed", 400, "{\"bad\": 1}"]),
            json!(["may-read", "refused", 403, null]),
            json!(["unknown token", "refused", 401, null]),
            json!(["anonymous", "refused", 401, null]),
            json!(["anonymous", "refused", 421, null]),
        ]
    );
    for line in audited(&gateway, "POST /v1/purge") {
        assert!(
            line["from"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    let log = gateway.log().join("\n");
    for secret in ["token-of", "for-all", "but-wrong", "token=secret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn refusals_do_not_flood_the_log_and_actions_are_always_told() {
    let (_origin, gateway) = stored().await;
    for _ in 0..300 {
        ask(
            &gateway,
            "POST /v1/purge HTTP/1.1",
            &host("evil.example"),
            ALL,
        )
        .await;
    }
    for _ in 0..60 {
        gateway.purge(json!({"tag": "x"})).await;
    }
    e2e::wait::wait_until("all purges are told", e2e::wait::SOON, || {
        let told = audited(&gateway, "POST /v1/purge");
        told.iter().filter(|line| line["outcome"] == "done").count() == 60
    })
    .await;
    let told = audited(&gateway, "POST /v1/purge");
    let refused = told
        .iter()
        .filter(|line| line["outcome"] == "refused")
        .count();
    assert!(
        (1..250).contains(&refused),
        "{refused} lines about 300 refusals"
    );
}

#[tokio::test]
async fn at_the_start_it_is_said_what_is_open() {
    let (_origin, open) = stored().await;
    open.logged("that all is open", |line| {
        line.contains("no admin token is configured")
    })
    .await;
    let (_origin, closed) = with_tokens().await;
    closed
        .logged("what is open", |line| {
            line.contains("/livez, /readyz, /metrics, /v1/nodes, /v1/plugins are open")
        })
        .await;
}

#[tokio::test]
async fn setting_a_guard_aside_names_the_routes_that_fail_without_it() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let plugin = |name: &str, on_error: &str| {
        format!("{name}: {{file: p.wasm, watch: false, on_error: {{request: {on_error}}}}}")
    };
    let gateway = Setup::new(&origin)
        .file("p.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!(
                "{{{}, {}}}",
                plugin("guard", "refuse"),
                plugin("mild", "continue")
            ),
        )
        .route("{name: guarded, match: {path: /a/*}, upstream: origin, request: {plugin: guard}}")
        .route("{name: open, upstream: origin, request: {plugin: mild}}")
        .start()
        .await;
    for (name, failing) in [("guard", json!(["guarded"])), ("mild", json!([]))] {
        let path = format!("/v1/plugins/{name}/quarantine");
        let answer = gateway.admin(Method::POST, &path, "").await;
        let body: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(body["failing_routes"], failing, "{body}");
    }
}
