//! What is told of the rules of a route: their order where a request is explained, and which of them
//! has answered one, in its record, the access log and the metrics.

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

const ALICE: &str = "alice:$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n";

/// Every rule that a route with an origin may have.
const ALL: &str = "split: {to: [{upstream: origin, weight: 1}, {upstream: next, weight: 0}]}, \
     request_id: on, access: {deny: [192.0.2.1]}, maintenance: {enabled: true, allow: [127.0.0.0/8]}, \
     trailing_slash: remove, limit: [loads, visits], cors: {origins: [\"https://a.test\"]}, \
     auth: {basic: users.htpasswd}, device: x-device, bypass: {cookie: [member]}, \
     cookies: {drop: [_ga]}, accept_language: [de, en], rewrite: {add_prefix: /v2}, \
     headers: {request: {set: {x-env: prod}}, response: {set: {x-a: one}}}, \
     mirror: {upstream: next}, esi: {}, errors: [{statuses: [502]}], security_headers: basic, \
     compress: {passes: true}";

fn limits() -> &'static str {
    "{visits: {rate: 10/s}, loads: {rate: 10/s, at: origin}}"
}

async fn explained(gateway: &Gateway, url: &str) -> Value {
    let body = json!({ "url": url }).to_string();
    let answer = gateway.admin(Method::POST, "/v1/explain", &body).await;
    serde_json::from_str(&answer.text).unwrap()
}

/// The rules that are explained: what stands before the colon.
fn names(explained: &Value) -> Vec<&str> {
    let lines = explained["rules"].as_array().unwrap().iter();
    let lines = lines.map(|line| line.as_str().unwrap());
    lines.map(|line| line.split(':').next().unwrap()).collect()
}

/// The order of the steps is that of `docs/rules.md`, and of what is done.
#[tokio::test]
async fn explain_tells_all_rules_in_the_order_in_which_they_are_applied() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let all_of = ALL.replace(
        "mirror: {upstream: next}",
        "mirror: {upstream: next, of: all}",
    );
    let gateway = Setup::new(&origin)
        .upstream("next", &origin.url())
        .file("users.htpasswd", ALICE)
        .top("limits", limits())
        .route(&format!("{{name: all, match: {{host: all.test}}, {all_of}}}"))
        .route(
            "{name: own, match: {host: own.test}, respond: {body: x}, access: {deny: [192.0.2.1]}, \
             headers: {response: {set: {x-a: one}}}, security_headers: basic, request_id: on}",
        )
        .route(
            "{name: moved, match: {host: moved.test}, redirect: {to: /x}, maintenance: {enabled: true}}",
        )
        .route(&format!("{{name: site, {ALL}}}"))
        .start()
        .await;
    let before = [
        "split",
        "request id",
        "access",
        "maintenance",
        "trailing slash",
        "limit visits",
        "cors",
        "auth",
        "device",
        "bypass",
        "cookies",
        "accept_language",
    ];
    let after = [
        "esi",
        "errors",
        "security headers",
        "headers of answers",
        "compress",
    ];
    for (url, between) in [
        (
            "http://site.test/a",
            ["limit loads", "rewrite", "headers for the origin", "mirror"],
        ),
        (
            "http://all.test/a",
            ["mirror", "limit loads", "rewrite", "headers for the origin"],
        ),
    ] {
        let told = explained(&gateway, url).await;
        let expected: Vec<_> = before.into_iter().chain(between).chain(after).collect();
        assert_eq!(names(&told), expected, "{told}");
    }
    let own = explained(&gateway, "http://own.test/a").await;
    let expected = [
        "request id",
        "access",
        "respond",
        "security headers",
        "headers of answers",
    ];
    assert_eq!(names(&own), expected);
    let decision = "answered by the route itself, before the cache";
    assert_eq!(own["decision"], decision);
    let moved = explained(&gateway, "http://moved.test/a").await;
    assert_eq!(names(&moved), ["maintenance", "redirect"]);
    let decision = "answered by maintenance (503), before the cache";
    assert_eq!(moved["decision"], decision);
}

/// What a request would get is what `explain` says of it, also where a rule answers only some.
#[tokio::test]
async fn explain_tells_which_rule_would_answer() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: slash, match: {host: slash.test}, upstream: origin, trailing_slash: add}")
        .route(
            "{name: closed, match: {host: closed.test}, upstream: origin, maintenance: {enabled: true}}",
        )
        .route(
            "{name: kept, match: {host: kept.test}, upstream: origin, \
             maintenance: {enabled: true, serve: cached}}",
        )
        .route("{name: cors, match: {host: cors.test}, upstream: origin, cors: {origins: [\"*\"]}}")
        .start()
        .await;
    let preflight = json!({"origin": "https://a.test", "access-control-request-method": "PUT"});
    for (method, host, headers, status, decision) in [
        (
            Method::GET,
            "slash",
            json!({}),
            308,
            "answered by a redirect of trailing_slash (308), before the cache",
        ),
        (Method::POST, "slash", json!({}), 200, "pass (method)"),
        (
            Method::GET,
            "closed",
            json!({}),
            503,
            "answered by maintenance (503), before the cache",
        ),
        (
            Method::POST,
            "closed",
            json!({}),
            503,
            "answered by maintenance (503), before the cache",
        ),
        (
            Method::GET,
            "kept",
            json!({}),
            503,
            "cache, and maintenance (503) in place of a load",
        ),
        (
            Method::POST,
            "kept",
            json!({}),
            503,
            "answered by maintenance (503): this is never stored",
        ),
        (
            Method::OPTIONS,
            "cors",
            preflight,
            204,
            "answered by cors, since it is a browser's preflight (204), before the cache",
        ),
        (Method::OPTIONS, "cors", json!({}), 200, "pass (method)"),
    ] {
        let fields = headers.as_object().unwrap().iter();
        let body = json!({
            "url": format!("http://{host}.test/a"),
            "method": method.as_str(),
            "headers": headers,
        });
        let told = gateway
            .admin(Method::POST, "/v1/explain", &body.to_string())
            .await;
        let told: Value = serde_json::from_str(&told.text).unwrap();
        assert_eq!(told["decision"], decision, "{method} {host}: {told}");
        let asked = gateway.client().uncached().ask(method.clone(), "/a");
        let asked = asked.host(&format!("{host}.test"));
        let asked = fields.fold(asked, |ask, (name, value)| {
            ask.header(name, value.as_str().unwrap())
        });
        assert_eq!(asked.send().await.status, status, "{method} {host}");
    }
}

/// Each route that answers by a rule, what is asked of it, and the rule.
const ANSWERS: [(&str, &str, u16, &str); 11] = [
    (
        "access",
        "access: {deny: [127.0.0.0/8]}",
        403,
        "may not ask",
    ),
    (
        "maintenance",
        "maintenance: {enabled: true}",
        503,
        "is closed",
    ),
    (
        "maintenance",
        "maintenance: {enabled: true, serve: cached}",
        503,
        "is closed",
    ),
    ("redirect", "redirect: {to: /x}", 308, "at another place"),
    (
        "trailing_slash",
        "trailing_slash: add",
        308,
        "has another spelling",
    ),
    ("respond", "respond: {body: x}", 200, "an answer of its own"),
    ("limit", "limit: [few]", 429, "has asked too often"),
    ("limit", "limit: [loads]", 429, "has asked too often"),
    (
        "cors",
        "cors: {origins: [\"https://a.test\"]}",
        204,
        "a browser asked",
    ),
    (
        "auth",
        "auth: {basic: users.htpasswd}",
        401,
        "was not let in",
    ),
    // Who is refused gets a page for it; the rule that has refused counts.
    (
        "access",
        "access: {deny: [127.0.0.0/8]}, errors: [{}]",
        403,
        "may not ask",
    ),
];

async fn ask(gateway: &Gateway, rule: &str, host: &str) -> Answer {
    let client = gateway.client().uncached();
    match rule {
        "cors" => {
            let ask = client.ask(Method::OPTIONS, "/page").host(host);
            let ask = ask.header("origin", "https://a.test");
            ask.header("access-control-request-method", "GET")
                .send()
                .await
        }
        _ => client.request("/page").host(host).send().await,
    }
}

/// The record of the newest request for this host.
async fn record(gateway: &Gateway, host: &str) -> Value {
    let path = format!("/v1/requests/recent?contains={host}&limit=1");
    wait_for("the request is among the last ones", SOON, async || {
        let answer = gateway.admin(Method::GET, &path, "").await;
        let told: Value = serde_json::from_str(&answer.text).unwrap();
        told["requests"].get(0).cloned()
    })
    .await
}

#[tokio::test]
async fn the_rule_that_has_answered_is_told_by_record_log_and_metrics() {
    let origin = Origin::pages(|seen| match &*seen.path {
        "/broken" => Reply::ok("a stack trace").status(500),
        _ => Reply::ok("x").header("cache-control", "no-store"),
    })
    .await;
    let admin = "{address: \"127.0.0.1:0\", token: a-token-for-reading}";
    let setup = Setup::new(&origin)
        .top("admin", admin)
        .top("telemetry", "{log_format: json, access_log: on}")
        .top(
            "limits",
            "{few: {rate: 1/h, burst: 1}, loads: {rate: 1/h, burst: 1, at: origin}}",
        )
        .file("users.htpasswd", ALICE);
    let routes = ANSWERS.iter().enumerate();
    let setup = routes.fold(setup, |setup, (number, (rule, keys, ..))| {
        let upstream = match *rule {
            "redirect" | "respond" => "",
            _ => "upstream: origin, ",
        };
        setup.route(&format!(
            "{{name: r{number}, match: {{host: r{number}.test}}, {upstream}{keys}}}"
        ))
    });
    let gateway = setup
        .route("{name: site, upstream: origin, errors: [{of: any, statuses: [500]}]}")
        .start()
        .await
        .with_token("a-token-for-reading");
    for (number, (rule, keys, status, why)) in ANSWERS.into_iter().enumerate() {
        let host = format!("r{number}.test");
        if rule == "limit" {
            assert_eq!(ask(&gateway, rule, &host).await.status, 200, "{keys}");
            assert_eq!(record(&gateway, &host).await["rule"], Value::Null, "{keys}");
        }
        assert_eq!(ask(&gateway, rule, &host).await.status, status, "{keys}");
        let told = wait_for("its record", SOON, async || {
            let told = record(&gateway, &host).await;
            (told["status"] == status).then_some(told)
        })
        .await;
        assert_eq!(told["rule"], rule, "{keys}: {told}");
        let end = told["end"].as_str().unwrap();
        let begins = format!("It was answered {status} by the rule `{rule}` of its route");
        assert!(
            end.starts_with(&begins) && end.contains(why),
            "{keys}: {end}"
        );
        let route = format!("r{number}");
        let labels = [("route", &*route), ("step", rule)];
        let metric = "lamina_rule_answers_total";
        assert_eq!(gateway.metric(metric, &labels).await, 1.0, "{keys}");
        let of = format!("\"host\":\"{host}\"");
        let (status, rule) = (
            format!("\"status\":{status}"),
            format!("\"rule\":\"{rule}\""),
        );
        gateway
            .logged("its line tells the rule", |line| {
                line.contains(&of) && line.contains(&status) && line.contains(&rule)
            })
            .await;
    }
    let client = gateway.client().uncached();
    client.request("/broken").host("site.test").send().await;
    let told = record(&gateway, "site.test/broken").await;
    assert_eq!(told["rule"], "errors", "{told}");
    let end = told["end"].as_str().unwrap();
    assert!(end.contains("The rule `errors` of its route"), "{end}");
    client.request("/page").host("site.test").send().await;
    let told = record(&gateway, "site.test/page").await;
    assert_eq!(told["rule"], Value::Null, "no rule has answered: {told}");
    let errors = [("route", "site")];
    let metric = "lamina_rule_answers_total";
    assert_eq!(gateway.metric(metric, &errors).await, 1.0);
}
