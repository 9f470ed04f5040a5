//! `auth: {forward: …}`: a service decides about each request (traffic.md, FA1 to FA6).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::cli::run;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::json;

const FORWARD: &str = "upstream: sso, path: /verify, take: [x-auth-user]";
const KEYED: &str = ", key: {headers: [x-auth-user]}";

/// What the service says by the cookie.
fn verdict(seen: &Seen) -> Reply {
    let name = seen.header("cookie").replace("session=", "");
    match &*name {
        "alice" | "bob" => Reply::ok("yes").header("x-auth-user", &name),
        "quiet" => Reply::ok("yes"),
        "login" => Reply::ok("to the login")
            .status(302)
            .header("location", "https://sso.test/login")
            .header("set-cookie", "state=1"),
        "moved" => Reply::ok("").status(301).header("location", "/x"),
        "denied" => Reply::ok("you may not").status(403),
        "broken" => Reply::ok("no").status(500),
        "absent" => Reply::ok("no").status(404),
        "cut" => Reply::hang_up(),
        _ => Reply::ok("who are you")
            .status(401)
            .header("set-cookie", "seen=1"),
    }
}

async fn site(forward: &str, more: &str) -> (Origin, Origin, Gateway) {
    let service = Origin::pages(verdict).await;
    let (origin, gateway) = before(&service, forward, more).await;
    (service, origin, gateway)
}

async fn before(service: &Origin, forward: &str, more: &str) -> (Origin, Gateway) {
    let origin =
        Origin::pages(|seen| Reply::fresh(format!("page of {}", seen.header("x-auth-user")))).await;
    let route = format!(
        "{{name: site, upstream: origin, policy: {{cookies: ignore}}, auth: {{forward: {{{forward}}}}}{more}}}"
    );
    let gateway = Setup::new(&origin)
        .upstream("sso", &format!("{{targets: [\"{}\"]}}", service.url()))
        .route(&route)
        .start()
        .await;
    (origin, gateway)
}

async fn get(client: &Client, session: &str) -> Answer {
    let ask = client.request("/page?q=1");
    ask.header("cookie", &format!("session={session}"))
        .send()
        .await
}

/// CVE-2026-35051 (GHSA-6384-m2mw-rf54) by `X-Forwarded-Prefix`, traefik/traefik#12657 by
/// `Forwarded`: a client led the service to another decision.
#[tokio::test]
async fn the_service_gets_what_is_listed_and_nothing_else_of_the_client() {
    let (service, _origin, gateway) = site(FORWARD, KEYED).await;
    let client = gateway.client();
    let mut ask = client
        .ask(Method::POST, "/page?q=1")
        .host("shop.test")
        .body("content");
    for (name, value) in [
        ("cookie", "session=alice"),
        ("authorization", "Bearer x"),
        ("accept", "text/html"),
        ("x-forwarded-prefix", "/public"),
        ("x-forwarded-uri", "/public"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x_forwarded_uri", "/public"),
        ("x.forwarded.uri", "/public"),
        ("forwarded", "for=10.0.0.1;host=evil.test"),
        ("x-original-url", "/public"),
        ("x-rewrite-url", "/public"),
        ("x-auth-user", "admin"),
        ("content-type", "text/plain"),
        ("user-agent", "evil"),
    ] {
        ask = ask.header(name, value);
    }
    assert_eq!(ask.send().await.status, 200);
    let seen = service.last();
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "authorization",
        "cdn-loop",
        "cookie",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-proto",
        "x-forwarded-uri",
    ];
    assert_eq!(names, expected);
    assert_eq!((seen.method.as_str(), &*seen.path), ("GET", "/verify"));
    assert!(seen.body.is_none_or(|body| body.is_empty()));
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-uri", "/page?q=1"),
    ] {
        assert_eq!(service.last().header(name), value, "{name}");
    }
}

/// GHSA-x677-9fxg-v5c5 (`_`) and its follow-up (`.`): an origin that folds names takes a client's
/// field for the service's.
#[tokio::test]
async fn no_spelling_of_what_the_service_says_comes_from_a_client() {
    let (_service, origin, gateway) = site(FORWARD, KEYED).await;
    for session in ["alice", "quiet"] {
        let names = [
            "x-auth-user",
            "X-Auth-User",
            "x_auth_user",
            "X_AUTH-user",
            "x.auth.user",
            "x-auth.user",
            "x~auth|user",
        ];
        for (n, name) in names.into_iter().enumerate() {
            let mut raw = gateway.raw().await;
            raw.write(format!(
                "GET /{session}/{n} HTTP/1.1\r\nhost: x\r\ncookie: session={session}\r\n{name}: admin\r\nconnection: close\r\n\r\n"))
            .await;
            let status = raw.head().await.status;
            if status == 400 {
                continue;
            }
            assert_eq!(status, 200, "{name}");
            let seen = origin.last();
            assert_eq!(seen.path, format!("/{session}/{n}"), "the origin was asked");
            let folded = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let fields = seen
                .headers
                .iter()
                .filter(|(name, _)| folded(name.as_str()) == "x-auth-user");
            let values: Vec<_> = fields.map(|(_, value)| value.to_str().unwrap()).collect();
            let expected: &[&str] = if session == "alice" { &["alice"] } else { &[] };
            assert_eq!(values, expected, "{session} {name}");
        }
    }
}

#[tokio::test]
async fn each_user_has_entries_of_his_own_and_a_stranger_none() {
    let (_service, origin, gateway) = site(FORWARD, KEYED).await;
    let client = gateway.client();
    for (session, body) in [("alice", "page of alice"), ("bob", "page of bob")] {
        assert_eq!(get(&client, session).await.text(), body);
        let again = get(&client, session).await;
        assert!(again.is_hit());
        assert_eq!(again.text(), body);
    }
    let client = client.uncached();
    for (name, value) in [
        ("x-nothing", ""),
        ("x-auth-user", "alice"),
        ("range", "bytes=0-3"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client
                .ask(method, "/page?q=1")
                .header(name, value)
                .send()
                .await;
            assert_eq!(answer.status, 401, "{name}");
            assert!(!answer.text().contains("page of"));
        }
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn refusals_and_redirects_are_the_clients_and_never_stored() {
    let (service, origin, gateway) = site(FORWARD, KEYED).await;
    let client = gateway.client().uncached();
    for (session, status, body, cookie) in [
        ("login", 302, "to the login", "state=1"),
        ("moved", 301, "", ""),
        ("denied", 403, "you may not", ""),
        ("stranger", 401, "who are you", "seen=1"),
    ] {
        for _ in 0..2 {
            let answer = get(&client, session).await;
            assert_eq!(answer.status, status, "{session}");
            assert_eq!(answer.text(), body);
            assert_eq!(answer.header("set-cookie"), cookie);
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
    assert_eq!((service.count(), origin.count()), (8, 0));
    let head = client
        .ask(Method::HEAD, "/")
        .header("cookie", "session=denied")
        .send()
        .await;
    assert_eq!(head.status, 403);
}

#[tokio::test]
async fn nobody_is_let_in_when_the_service_fails() {
    let (_service, origin, gateway) = site(FORWARD, KEYED).await;
    let client = gateway.client().uncached();
    for session in ["broken", "absent", "cut"] {
        let answer = get(&client, session).await;
        assert_eq!(answer.status, 503, "{session}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let silent = Origin::start(|_| std::future::pending::<Reply>()).await;
    let forward = format!("{FORWARD}, timeout: 200ms");
    let (other, gateway) = before(&silent, &forward, KEYED).await;
    assert_eq!(get(&gateway.client().uncached(), "alice").await.status, 503);
    assert_eq!((origin.count(), other.count()), (0, 0));
    let labels = [("route", "site"), ("outcome", "unable")];
    assert_eq!(gateway.metric("lamina_auth_total", &labels).await, 1.0);
}

/// The service is behind a route that asks the service.
#[tokio::test]
async fn a_question_about_a_question_is_not_asked() {
    let (service, origin, gateway) = site(FORWARD, KEYED).await;
    let client = gateway.client().uncached();
    assert_eq!(get(&client, "alice").await.status, 200);
    let mark = service.last().header("cdn-loop").to_owned();
    assert!(!mark.is_empty(), "questions are marked");
    let question = client.request("/verify").header("cdn-loop", &mark);
    let looped = question.header("cookie", "session=alice").send().await;
    assert_eq!(looped.status, 508);
    assert_eq!(looped.header("cache-control"), "no-store");
    assert_eq!((service.count(), origin.count()), (1, 1));

    let itself = format!("{{targets: [\"http://{}\"]}}", gateway.address);
    let route = "{name: site, upstream: origin, policy: {cookies: ignore}, key: {headers: [x-auth-user]}, \
                 auth: {forward: {upstream: sso, path: /verify, take: [x-auth-user]}}}";
    let setup = Setup::new(&origin).upstream("sso", &itself).route(route);
    gateway.take_up(&setup).await;
    let answer = get(&client, "alice").await;
    assert_eq!(
        (answer.status.as_u16(), answer.has("x-auth-user")),
        (503, false)
    );
    let labels = [("route", "site"), ("outcome", "unable")];
    let unable = gateway.metric("lamina_auth_total", &labels).await;
    assert_eq!(unable, 3.0, "the client's, its question, and the first one");
    assert_eq!((service.count(), origin.count()), (1, 1));
}

#[tokio::test]
async fn it_may_be_asked_by_head() {
    let (service, _origin, gateway) = site(&format!("{FORWARD}, method: HEAD"), KEYED).await;
    let client = gateway.client().uncached();
    assert_eq!(get(&client, "alice").await.status, 200);
    assert_eq!(service.last().method, Method::HEAD);
    let denied = get(&client, "denied").await;
    assert_eq!((denied.status.as_u16(), denied.text()), (403, ""));
}

#[tokio::test]
async fn a_websocket_is_asked_about_as_well() {
    let service = Origin::pages(verdict).await;
    let origin = Origin::start(|_| async {
        Reply::upgrade("echo", |tunnel| async move {
            drop(tunnel);
        })
    })
    .await;
    let gateway = Setup::new(&origin)
        .upstream("sso", &format!("{{targets: [\"{}\"]}}", service.url()))
        .route("{name: site, upstream: origin, cache: off, auth: {forward: {upstream: sso, path: /verify}}}")
        .start()
        .await;
    for (session, status) in [("denied", 403), ("alice", 101)] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\ncookie: session={session}\r\n\r\n"
        ))
        .await;
        assert_eq!(raw.head().await.status, status, "{session}");
    }
    assert_eq!(origin.count(), 1);
}

/// A service that says how long its yes counts.
async fn counting(directive: &'static str) -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let service = Origin::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            // Time for others to come.
            tokio::time::sleep(Duration::from_millis(200)).await;
            Reply::ok("yes")
                .header("x-auth-user", "alice")
                .header("cache-control", directive)
                .header("cache-tag", "page, auth:alice")
        }
    })
    .await;
    (service, asked)
}

const REMEMBERED: &str = "upstream: sso, path: /verify, send: [authorization], take: [x-auth-user], timeout: 10s, \
                          cache: {key: [header.authorization], max: 60s}";

async fn with_token(client: &Client, token: &str) -> Answer {
    client
        .request("/")
        .header("authorization", token)
        .send()
        .await
}

#[tokio::test]
async fn a_yes_is_remembered_for_who_got_it_until_a_purge() {
    let (service, asked) = counting("max-age=60").await;
    let (_origin, gateway) = before(&service, REMEMBERED, KEYED).await;
    let client = gateway.client().uncached();
    let herd = (0..12).map(|_| with_token(&client, "Bearer a"));
    for answer in futures_util::future::join_all(herd).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "one question for all of them"
    );
    with_token(&client, "Bearer b").await;
    client.get("/").await;
    assert_eq!(
        asked.load(Ordering::SeqCst),
        3,
        "another word is another question"
    );
    for (tag, expected) in [("auth:site", 4), ("auth:alice", 5), ("page", 5)] {
        gateway.purge(json!({"tag": tag})).await;
        with_token(&client, "Bearer a").await;
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{tag}");
    }
}

/// A session that the service renews.
#[tokio::test]
async fn a_yes_may_set_cookies_at_its_own_client() {
    let service = Origin::pages(|_| {
        Reply::ok("yes")
            .header("cache-control", "max-age=60")
            .header("set-cookie", "session=new; HttpOnly; Path=/")
            .header("set-cookie", "session_refresh=x; Secure")
            .header("set-cookie", "internal=y")
    })
    .await;
    let origin = Origin::pages(|_| {
        Reply::ok("page")
            .header("cache-control", "public, max-age=3600")
            .header("cdn-cache-control", "max-age=3600")
            .header("expires", "Sun, 06 Nov 2044 08:49:37 GMT")
    })
    .await;
    let sso = format!("{{targets: [\"{}\"]}}", service.url());
    let route = |name: &str, more: &str| {
        format!(
            "{{name: {name}, match: {{path: /{name}/*}}, upstream: origin, policy: {{ttl: 1h}}, \
             auth: {{forward: {{upstream: sso, path: /verify, send: [authorization]{more}}}}}}}"
        )
    };
    let gateway = Setup::new(&origin)
        .upstream("sso", &sso)
        .route(&route("gives", ", cookies: [session*]"))
        .route(&route("keeps", ""))
        .route(&route(
            "remembers",
            ", cookies: [session*], cache: {key: [header.authorization], max: 60s}",
        ))
        .start()
        .await;
    // The cookies are not stored, though the answer to which they are given is.
    let client = gateway.client().uncached().unchecked();
    let cookies = |answer: &Answer| {
        let lines = answer.headers.get_all("set-cookie").into_iter();
        let lines = lines.map(|line| line.to_str().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    let given = ["session=new; HttpOnly; Path=/", "session_refresh=x; Secure"];
    for n in 0..3 {
        let answer = client.get("/gives/page").await;
        assert_eq!((answer.text(), answer.is_hit()), ("page", n > 0));
        assert_eq!(cookies(&answer), given);
        // No cache on the way may give this to others.
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert!(!answer.has("cdn-cache-control") && !answer.has("expires"));
        let head = client.head("/gives/page").await;
        assert_eq!(cookies(&head), given);
    }
    let kept = client.get("/keeps/page").await;
    assert_eq!(cookies(&kept), [""; 0]);
    assert_eq!(kept.header("cache-control"), "public, max-age=3600");
    let first = client.get("/remembers/page").await;
    assert_eq!(cookies(&first), given);
    let second = client.get("/remembers/page").await;
    assert!(second.is_hit());
    assert_eq!(cookies(&second), [""; 0], "they were for the one who asked");
    assert_eq!(second.header("cache-control"), "public, max-age=3600");
}

#[tokio::test]
async fn the_service_says_how_long_its_yes_counts() {
    for directive in ["no-store", "private", "no-cache", "max-age=0"] {
        let (service, asked) = counting(directive).await;
        let (_origin, gateway) = before(&service, REMEMBERED, KEYED).await;
        let client = gateway.client().uncached();
        for _ in 0..2 {
            with_token(&client, "Bearer a").await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{directive}");
    }
    let (service, asked) = counting("max-age=1").await;
    let (_origin, gateway) = before(&service, REMEMBERED, KEYED).await;
    let client = gateway.client().uncached();
    with_token(&client, "Bearer a").await;
    wait_for("it is asked again", SOON, || async {
        with_token(&client, "Bearer a").await;
        (asked.load(Ordering::SeqCst) > 1).then_some(())
    })
    .await;
}

#[test]
fn what_would_mix_users_up_is_refused() {
    for (forward, more, said) in [
        (FORWARD, "", "would be stored for everybody"),
        ("upstream: nowhere, path: /", "", "no upstream"),
        (
            "upstream: o, path: /, send: [x-forwarded-uri]",
            "",
            "says nothing here",
        ),
        (
            "upstream: o, path: /, send: [X_Forwarded_For]",
            "",
            "says nothing here",
        ),
        (
            "upstream: o, path: /, send: [connection]",
            "",
            "says nothing here",
        ),
        (
            "upstream: o, path: /, take: [x_user]",
            ", cache: off",
            "each name once",
        ),
        (
            "upstream: o, path: /, take: [host]",
            ", cache: off",
            "not a field about the sender",
        ),
        (
            "upstream: o, path: /, cache: {key: [header.authorization], max: 1m}",
            "",
            "which the key does not have",
        ),
        (
            "upstream: o, path: /, send: [], cache: {key: [path], max: 1m}",
            "",
            "nothing that a key has",
        ),
        ("upstream: o, path: verify", "", "path"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let forward = forward.replace("sso", "o");
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{o: {{targets: [\"http://127.0.0.1:1\"]}}}}\nroutes:\n  - {{name: r, upstream: o, auth: {{forward: {{{forward}}}}}{more}}}\n"
        );
        let config = write_config(dir.path(), &yaml);
        let refused = run(&["validate", "-c", config.to_str().unwrap()]);
        assert_ne!(refused.code, Some(0), "{forward}");
        assert!(
            refused.output().contains(said),
            "{forward}: {}",
            refused.output()
        );
    }
}

/// FOSHttpCache's user context: the application says a hash of a user's rights for a request with a
/// media type of its own, and users with the same hash share pages.
#[tokio::test]
async fn users_with_the_same_rights_share_pages_by_a_hash_that_the_application_says() {
    const HASH: &str = "application/vnd.fos.user-context-hash";
    let application = Origin::pages(|seen| {
        let rights = match seen.header("cookie") {
            "session=alice" | "session=bob" => "editors",
            "session=eve" => "readers",
            _ => "nobody",
        };
        match (seen.path_only(), seen.header("accept")) {
            ("/_fos_user_context_hash", HASH) => Reply::ok("")
                .header("x-user-context-hash", rights)
                .header("content-type", HASH),
            ("/_fos_user_context_hash", _) => Reply::status_only(404),
            _ if seen.header("x-user-context-hash") != rights => Reply::status_only(412),
            _ => Reply::fresh(format!("for {rights}")).header("vary", "x-user-context-hash"),
        }
    })
    .await;
    let forward = format!(
        "{{upstream: origin, path: /_fos_user_context_hash, send: [cookie, accept], \
         set: {{accept: {HASH}}}, take: [x-user-context-hash], \
         cache: {{key: [cookie.session], max: 60s}}}}"
    );
    let gateway = Setup::new(&application)
        .route(&format!(
            "{{name: site, upstream: origin, policy: {{cookies: ignore}}, \
             key: {{headers: [x-user-context-hash]}}, auth: {{forward: {forward}}}}}"
        ))
        .start()
        .await;
    let client = gateway.client();
    for (session, page, is_hit) in [
        ("alice", "for editors", false),
        ("bob", "for editors", true),
        ("eve", "for readers", false),
        ("nobody", "for nobody", false),
        ("alice", "for editors", true),
    ] {
        let forged = client.request("/page?q=1");
        let answer = forged
            .header("cookie", &format!("session={session}"))
            .header("x-user-context-hash", "editors")
            .header("accept", "text/html")
            .send()
            .await;
        assert_eq!(answer.text(), page, "{session}");
        assert_eq!(answer.is_hit(), is_hit, "{session}");
    }
    let questions = application.seen().into_iter();
    let questions = questions.filter(|seen| seen.path_only() == "/_fos_user_context_hash");
    assert_eq!(questions.count(), 4, "one for each session");
}

/// FA5: what the service tells the origin is an input as what a plugin sets is.
#[tokio::test]
async fn without_a_key_unkeyed_decides_what_two_users_share() {
    for (unkeyed, second, loads) in [
        ("vary", "bob", 2),
        ("refuse_store", "bob", 4),
        ("allow", "alice", 1),
    ] {
        let (_service, origin, gateway) = site(FORWARD, &format!(", unkeyed: {unkeyed}")).await;
        let client = gateway.client();
        for session in ["alice", "bob", "alice", "bob"] {
            let shown = if session == "bob" { second } else { session };
            let answer = get(&client, session).await;
            assert_eq!(answer.text(), format!("page of {shown}"), "{unkeyed}");
        }
        assert_eq!(origin.count(), loads, "{unkeyed}");
    }
}

/// Issue 18: the service may decide by what it is told of the request.
#[tokio::test]
async fn a_yes_to_a_method_is_no_yes_to_another_one() {
    let service = Origin::pages(|seen| {
        let reads = ["GET", "HEAD"].contains(&seen.header("x-forwarded-method"));
        match reads && seen.header("x-forwarded-host") == "shop.test" {
            true => Reply::ok("yes"),
            false => Reply::ok("no").status(403),
        }
    })
    .await;
    let forward = "upstream: sso, path: /verify, send: [authorization], \
                   cache: {key: [header.authorization, uri], max: 60s}";
    let (origin, gateway) = before(&service, forward, ", cache: off").await;
    let ask = async |method: Method, host: &str| {
        let ask = gateway.client().ask(method, "/page").host(host);
        ask.header("authorization", "Bearer r").send().await.status
    };
    assert_eq!(ask(Method::GET, "shop.test").await, 200);
    assert_eq!(ask(Method::DELETE, "shop.test").await, 403);
    assert_eq!(ask(Method::GET, "other.test").await, 403);
    assert_eq!(ask(Method::GET, "shop.test").await, 200);
    assert_eq!((origin.count(), service.count()), (2, 3));
}

/// Issue 18: the service saw a cookie where the key saw none.
#[tokio::test]
async fn a_yes_to_a_cookie_is_no_yes_to_who_shows_none() {
    let service = Origin::pages(|seen| {
        let valid = seen.header("cookie").split(';').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("session") && value.trim() == "valid"
        });
        match valid {
            true => Reply::ok("yes"),
            false => Reply::ok("no").status(401),
        }
    })
    .await;
    let forward = "upstream: sso, path: /verify, send: [cookie], \
                   cache: {key: [cookie.session, uri], max: 60s}";
    let (_origin, gateway) = before(&service, forward, ", cache: off").await;
    let ask = async |cookie: &str| {
        let ask = gateway.client().request("/page");
        ask.header("cookie", cookie).send().await.status
    };
    // The last two show the service more than the key knows of.
    for valid in [
        "session=valid",
        "session =valid",
        "session\t= valid",
        "Session=valid",
        "session=; Session=valid",
    ] {
        assert_eq!(ask(valid).await, 200, "{valid}");
        for other in ["a=b", "session=wrong", "session=", "session =wrong"] {
            assert_eq!(ask(other).await, 401, "{valid} {other}");
        }
        assert_eq!(gateway.client().get("/page").await.status, 401, "{valid}");
    }
}

/// Issue 18: a cache behind the gateway went by what the service had said to it.
#[tokio::test]
async fn no_cache_is_told_to_keep_a_refusal() {
    const TOLD: [(&str, &str); 4] = [
        ("cdn-cache-control", "max-age=600"),
        ("surrogate-control", "max-age=600"),
        ("x-accel-expires", "600"),
        ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
    ];
    let service = Origin::pages(|_| {
        let login = Reply::ok("to the login").status(302);
        let login = login
            .header("location", "/login")
            .header("set-cookie", "s=1");
        TOLD.iter()
            .fold(login, |login, (name, value)| login.header(name, value))
    })
    .await;
    let more = ", cache: off, headers: {response: {set: {cache-control: \"public, max-age=60\", expires: never}}}";
    let (_origin, gateway) = before(&service, "upstream: sso, path: /verify", more).await;
    let answer = gateway.client().uncached().get("/page").await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("set-cookie"), "s=1");
    for (name, _) in TOLD {
        assert!(!answer.has(name), "{name}");
    }
}
