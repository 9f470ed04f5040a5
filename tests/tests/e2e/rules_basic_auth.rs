//! `auth: {basic: …}` (traffic.md, BA1 to BA4), and the law that holds for all of `auth`: a stored
//! answer is never shown to a request that is refused (O1).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::cli::run;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::{SOON, wait_for};
use http::Method;

const ALICE: &str = "alice:$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n";
const BOB: &str = "bob:$argon2id$v=19$m=64,t=1,p=1$TsHu3/RFzeog8D1CR5dG+w$Y8XsETyydMHt6vzMMh/B6DdOVknzrn8Kwvg+KvbsAG4\n";
/// Two thousand rounds.
const SLOW: &str = "carol:$2b$11$abcdefghijklmnopqrstuunCeKINGCIR2HCghh6O3jDKZvMFq0Aja\n";
const SECRET: &str = "for members alone";

fn word(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn alice() -> String {
    word("alice", "wonderland")
}

fn setup(origin: &Origin, users: &str, auth: &str, more: &str) -> Setup {
    let route =
        format!("{{name: site, upstream: origin, auth: {{basic: users.htpasswd{auth}}}{more}}}");
    Setup::new(origin)
        .file("users.htpasswd", users)
        .route(&route)
}

async fn gateway(auth: &str, more: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/public" => Reply::ok(SECRET).header("cache-control", "public, max-age=60"),
        _ => Reply::fresh(SECRET).header("etag", "\"a\""),
    })
    .await;
    let gateway = setup(&origin, &format!("{ALICE}{BOB}"), auth, more)
        .start()
        .await;
    (origin, gateway)
}

async fn get(client: &Client, path: &str, word: &str) -> Answer {
    client
        .request(path)
        .header("authorization", word)
        .send()
        .await
}

fn is_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}");
    assert!(
        answer
            .header("www-authenticate")
            .starts_with("Basic realm="),
        "{what}"
    );
    assert_eq!(answer.header("cache-control"), "no-store", "{what}");
    assert!(
        !answer.text().contains(SECRET) && !answer.has("etag"),
        "{what}"
    );
}

/// What nobody is let in with.
fn strangers() -> Vec<Option<String>> {
    let plain = |text: &str| Some(text.to_owned());
    vec![
        None,
        Some(word("alice", "wonderland2")),
        Some(word("alice", "")),
        Some(word("Alice", "wonderland")),
        Some(word("bob", "wonderland")),
        Some(word("nobody", "wonderland")),
        Some(word("", "")),
        plain("Basic"),
        plain("Basic !!!"),
        plain("Bearer wonderland"),
        plain("YWxpY2U6d29uZGVybGFuZA=="),
    ]
}

/// Fields that lead to other answers of a cache.
const FIELDS: [(&str, &str); 8] = [
    ("x-nothing", ""),
    ("if-none-match", "\"a\""),
    ("if-modified-since", "Sun, 06 Nov 2044 08:49:37 GMT"),
    ("range", "bytes=0-3"),
    ("cache-control", "only-if-cached"),
    ("cache-control", "max-stale"),
    ("cache-control", "no-cache"),
    ("origin", "https://a.example"),
];

#[tokio::test]
async fn a_stored_answer_is_never_shown_to_who_is_refused() {
    for policy in [
        "{ttl: 1h, request_directives: honor}",
        "{ttl: 10ms, mode: override, cookies: ignore, stale_while_revalidate: 1h, stale_if_error: 1h, request_directives: honor}",
    ] {
        let (origin, gateway) = gateway("", &format!(", policy: {policy}")).await;
        for client in [
            gateway.client().uncached(),
            gateway.client_http2().uncached(),
        ] {
            assert_eq!(get(&client, "/", &alice()).await.text(), SECRET);
            let asked = origin.count();
            for stranger in strangers() {
                for (name, value) in FIELDS {
                    for method in [Method::GET, Method::HEAD, Method::POST] {
                        let mut ask = client.ask(method.clone(), "/").header(name, value);
                        if let Some(word) = &stranger {
                            ask = ask.header("authorization", word);
                        }
                        let what = format!("{method} {stranger:?} {name}: {value}");
                        is_refused(&ask.send().await, &what);
                    }
                }
            }
            assert_eq!(
                origin.count(),
                asked,
                "the origin hears nothing of strangers"
            );
            let again = get(&client, "/", &alice()).await;
            assert_eq!(again.text(), SECRET, "and alice is still let in");
        }
    }
}

#[tokio::test]
async fn nor_over_http3_and_early_data() {
    let origin = Origin::pages(|_| Reply::fresh(SECRET)).await;
    let secured =
        SecuredGateway::start_with(setup(&origin, ALICE, "", ""), ", early_data: safe").await;
    for _ in 0..2 {
        let client = secured.client().await;
        let known = client
            .request("/")
            .header("authorization", &alice())
            .send()
            .await;
        assert_eq!(known.text(), SECRET);
        for stranger in strangers().into_iter().flatten() {
            let ask = client.request("/").header("authorization", &stranger);
            is_refused(&ask.send().await, &stranger);
        }
        is_refused(&client.get("/").await, "no word");
        is_refused(&client.head("/").await, "no word");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn one_stored_answer_is_for_all_users_and_the_password_ends_here() {
    let (origin, gateway) = gateway(", realm: Staging", "").await;
    let client = gateway.client();
    assert!(get(&client, "/", &alice()).await.cache().stored);
    let bob = get(&client, "/", &word("bob", "builder")).await;
    assert!(bob.is_hit());
    assert_eq!(bob.text(), SECRET);
    assert!(!origin.last().headers.contains_key("authorization"));
    let challenge = client.clone().uncached().get("/").await;
    assert_eq!(
        challenge.header("www-authenticate"),
        "Basic realm=\"Staging\", charset=\"UTF-8\""
    );
}

/// RFC 9111 §3.5: what an origin has made for a user is stored if the origin says that it may be.
#[tokio::test]
async fn where_the_password_goes_on_the_origin_decides_what_is_shared() {
    let (origin, gateway) = gateway(", pass: true", "").await;
    let client = gateway.client();
    assert!(!get(&client, "/", &alice()).await.cache().stored);
    assert_eq!(origin.last().header("authorization"), alice());
    assert!(!get(&client, "/", &word("bob", "builder")).await.is_hit());
    assert!(get(&client, "/public", &alice()).await.cache().stored);
    assert!(
        get(&client, "/public", &word("bob", "builder"))
            .await
            .is_hit()
    );
    is_refused(&client.uncached().get("/public").await, "nobody");
}

#[tokio::test]
async fn what_is_said_of_requests_is_counted_and_logged() {
    let (_origin, gateway) = gateway("", "").await;
    let client = gateway.client().uncached();
    get(&client, "/", &alice()).await;
    client.get("/").await;
    get(&client, "/", &word("alice", "x")).await;
    for (outcome, count) in [("allowed", 1.0), ("missing", 1.0), ("refused", 1.0)] {
        let labels = [("route", "site"), ("outcome", outcome)];
        assert_eq!(
            gateway.metric("lamina_auth_total", &labels).await,
            count,
            "{outcome}"
        );
    }
    let line = gateway
        .logged("the user", |line| line.contains("\"user\":\"alice\""))
        .await;
    assert!(!line.contains("wonderland"));
}

#[tokio::test]
async fn a_grpc_call_reads_that_it_is_refused() {
    let (_origin, gateway) = gateway("", "").await;
    let client = gateway.client_http2().uncached();
    let call = client.ask(Method::POST, "/pkg.A/B");
    let call = call
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let answer = call.send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "16")
    );
    assert!(answer.has("www-authenticate"));
}

/// Browsers send preflights without credentials.
#[tokio::test]
async fn a_preflight_needs_no_password() {
    let cors =
        ", cors: {origins: [\"https://a.example\"], headers: [authorization], credentials: true}";
    let (origin, gateway) = gateway("", cors).await;
    let client = gateway.client().uncached();
    let ask = client
        .ask(Method::OPTIONS, "/")
        .header("origin", "https://a.example");
    let answer = ask
        .header("access-control-request-method", "GET")
        .send()
        .await;
    assert_eq!(answer.status, 204);
    let plain = client
        .ask(Method::OPTIONS, "/")
        .header("origin", "https://a.example")
        .send()
        .await;
    assert_eq!(plain.status, 401);
    assert_eq!(
        plain.header("access-control-allow-origin"),
        "https://a.example"
    );
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn another_file_counts_at_once_after_a_reload() {
    let origin = Origin::pages(|_| Reply::fresh(SECRET)).await;
    let before = setup(&origin, &format!("{ALICE}{BOB}"), "", "");
    let gateway = before.start().await;
    let client = gateway.client().uncached();
    let bob = word("bob", "builder");
    for word in [&alice(), &bob] {
        assert_eq!(get(&client, "/", word).await.status, 200);
    }
    let other = ALICE.replace(
        "$2b$04$abcdefghijklmnopqrstuuj",
        "$2b$04$abcdefghijklmnopqrstuuk",
    );
    gateway.take_up(&setup(&origin, &other, "", "")).await;
    is_refused(&get(&client, "/", &bob).await, "bob is gone");
    is_refused(
        &get(&client, "/", &alice()).await,
        "alice has another password",
    );
    gateway.take_up(&before).await;
    assert_eq!(get(&client, "/", &alice()).await.text(), SECRET);
}

#[tokio::test]
async fn a_watched_file_of_users_is_taken_up() {
    let origin = Origin::pages(|_| Reply::fresh(SECRET)).await;
    let watching =
        setup(&origin, ALICE, "", "").top("server", "{threads: 2, drain_timeout: 1m, watch: on}");
    let gateway = watching.start().await;
    let client = gateway.client().uncached();
    let bob = word("bob", "builder");
    is_refused(&get(&client, "/", &bob).await, "bob");
    std::fs::write(
        gateway.dir().join("users.htpasswd"),
        format!("{ALICE}{BOB}"),
    )
    .unwrap();
    wait_for("bob is let in", Duration::from_secs(60), || async {
        (get(&client, "/", &bob).await.status == 200).then_some(())
    })
    .await;
}

/// caddyserver/caddy#3462, nginx/nginx#1084: guesses took the machine.
#[tokio::test]
async fn guesses_hold_up_nobody_who_is_known() {
    let origin = Origin::pages(|_| Reply::fresh(SECRET)).await;
    let gateway = setup(&origin, &format!("{ALICE}{SLOW}"), "", "")
        .start()
        .await;
    let client = gateway.client().uncached();
    assert_eq!(get(&client, "/", &alice()).await.status, 200);
    let ended = Arc::new(AtomicUsize::new(0));
    let guesses: Vec<_> = (0..24)
        .map(|n| {
            let (client, ended) = (client.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                let answer = get(&client, "/", &word("carol", &format!("guess {n}"))).await;
                ended.fetch_add(1, Ordering::SeqCst);
                answer.status.as_u16()
            })
        })
        .collect();
    wait_for("a guess was judged", SOON, || async {
        (ended.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    for _ in 0..5 {
        assert_eq!(get(&client, "/", &alice()).await.text(), SECRET);
    }
    let judged = ended.load(Ordering::SeqCst);
    assert!(judged < 24, "alice did not wait for all guesses");
    for guess in guesses {
        let status = guess.await.unwrap();
        assert!(status == 401 || status == 503, "{status}");
    }
}

/// Whoever measures the answers learns nothing of who exists: a hash is computed for each of them.
#[tokio::test]
async fn a_user_who_does_not_exist_costs_as_much_as_one_who_does() {
    let origin = Origin::pages(|_| Reply::fresh(SECRET)).await;
    let gateway = setup(&origin, SLOW, "", "").start().await;
    let client = gateway.client().uncached();
    let mut took = [Duration::ZERO; 2];
    for round in 0..3 {
        for (n, user) in ["carol", "nobody"].into_iter().enumerate() {
            let began = Instant::now();
            let word = word(user, &format!("guess {round}"));
            is_refused(&get(&client, "/", &word).await, user);
            took[n] += began.elapsed();
        }
    }
    let [known, unknown] = took;
    // Without a hash it would be a thousandth.
    assert!(unknown > known / 4, "{unknown:?} and {known:?}");
    assert!(known > unknown / 4, "{unknown:?} and {known:?}");
}

fn validated(users: &str, auth: &str, more: &str) -> e2e::cli::Ran {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("users.htpasswd"), users).unwrap();
    let yaml = format!(
        "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{o: {{targets: [\"http://127.0.0.1:1\"]}}}}\nroutes:\n  - {{name: r, upstream: o, auth: {{{auth}}}{more}}}\n"
    );
    let config = write_config(dir.path(), &yaml);
    run(&["validate", "-c", config.to_str().unwrap()])
}

#[test]
fn weak_files_are_refused_with_the_reason() {
    let good = validated(ALICE, "basic: users.htpasswd", "");
    assert_eq!(good.code, Some(0), "{}", good.output());
    for (users, auth, said) in [
        (
            "a:$apr1$salt$abcdefghijklmnopqrstuv\n",
            "basic: users.htpasswd",
            "line 1: MD5",
        ),
        (
            "a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n",
            "basic: users.htpasswd",
            "no salt",
        ),
        ("a:hunter2\n", "basic: users.htpasswd", "plain text"),
        ("", "basic: users.htpasswd", "no users"),
        (ALICE, "basic: absent.htpasswd", "cannot read"),
        (ALICE, "realm: x", "expected one of"),
        (ALICE, "basic: users.htpasswd, realm: 'a\"b'", "without"),
    ] {
        let refused = validated(users, auth, "");
        assert_ne!(refused.code, Some(0), "{auth}");
        assert!(
            refused.output().contains(said),
            "{auth}: {}",
            refused.output()
        );
        assert!(!refused.output().contains("hunter2") && !refused.output().contains("W6ph5"));
    }
}

/// Issue 18: the password had ended before anything looked at the request.
#[tokio::test]
async fn what_bypasses_by_its_password_is_neither_stored_nor_served_from_the_cache() {
    let more = ", bypass: {header: {authorization: \"*\"}}";
    let (origin, gateway) = gateway("", more).await;
    for _ in 0..2 {
        let answer = get(&gateway.client(), "/page", &alice()).await;
        let status = answer.header("cache-status");
        assert!(status.contains("fwd=bypass"), "{status}");
    }
    assert_eq!(origin.count(), 2);
    assert_eq!(origin.last().header("authorization"), "");
}

/// Issue 18: whoever stored a refusal gave it to everybody.
#[tokio::test]
async fn no_rule_makes_a_refusal_storable() {
    let more = ", headers: {response: {set: {cache-control: \"public, max-age=3600\", x-a: b}}}";
    let (_origin, gateway) = gateway("", more).await;
    let refused = gateway.client().uncached().get("/page").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("x-a"), "b", "other fields are set");
    let answer = get(&gateway.client(), "/page", &alice()).await;
    assert_eq!(answer.header("cache-control"), "public, max-age=3600");
}

/// Issue 18: users would share one entry whose key names the password.
#[test]
fn a_key_of_what_ends_before_it_is_refused() {
    for (auth, more, said) in [
        (
            "",
            ", key: {headers: [Authorization]}",
            "ends here before the key",
        ),
        (", pass: true", ", key: {headers: [authorization]}", ""),
    ] {
        let ran = validated(ALICE, &format!("basic: users.htpasswd{auth}"), more);
        assert_eq!(ran.code == Some(0), said.is_empty(), "{}", ran.output());
        assert!(ran.output().contains(said), "{}", ran.output());
    }
}
