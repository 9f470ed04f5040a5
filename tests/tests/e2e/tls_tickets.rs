//! Sessions that are resumed, and those that must not be (edge.md, TLS8).

use std::time::{Duration, Instant, SystemTime};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::authority::{Authority, Certificate, Order};
use e2e::tls::site::{HttpsSite, NAME};
use e2e::tls::{TlsClient, TlsFailure};
use e2e::wait::{SOON, passed, wait_for};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for tests";

/// Both versions of TLS, with sessions of their own.
fn versions(client: &TlsClient) -> [TlsClient; 2] {
    let anew = || client.clone().anew();
    [anew().only_tls12(), anew().only_tls13()]
}

/// A GET: whether the session was resumed, or why it is refused.
async fn resumed(client: &TlsClient) -> Result<bool, TlsFailure> {
    let (status, resumed) = client.connect().await?.answer(NAME).await?;
    assert_eq!(status, 200);
    Ok(resumed)
}

#[tokio::test]
async fn a_session_is_resumed_and_counted() {
    let site = HttpsSite::start("").await;
    for client in versions(&site.client()) {
        assert_eq!(resumed(&client).await, Ok(false));
        for _ in 0..5 {
            assert_eq!(resumed(&client).await, Ok(true));
        }
    }
    for (outcome, count) in [("full", 2.0), ("resumed", 10.0)] {
        let labels = [("outcome", outcome)];
        site.gateway
            .metric_until("lamina_tls_handshakes_total", &labels, |n| n == count)
            .await;
    }
}

#[tokio::test]
async fn without_tickets_nothing_is_resumed() {
    let site = HttpsSite::start("tickets: {enabled: false}").await;
    for client in versions(&site.client()) {
        for _ in 0..3 {
            assert_eq!(resumed(&client).await, Ok(false));
        }
    }
}

/// A node with two listeners: the first asks nobody for a certificate, the second, third and
/// fourth have policies for the name.
async fn node(origin: &Origin, servers: &Authority, ca: &[&str; 2], crl: &str) -> Gateway {
    let listener = |policies: &str| {
        let tickets = "tickets: {keys: [tickets.key]}";
        let pair = "certificates: [{cert: a.crt, key: a.key}]";
        format!("{{address: \"127.0.0.1:0\", tls: {{{pair}, {tickets}, policies: [{policies}]}}}}")
    };
    let policy = |auth: &str| format!("{{names: [{NAME}], client_auth: {{forward: off, {auth}}}}}");
    let all = [
        listener(""),
        listener(&policy("mode: require, ca: ca.pem")),
        listener(&policy("mode: request, ca: ca.pem")),
        listener(&policy("mode: require, ca: other.pem")),
        listener(&policy("mode: require, ca: ca.pem, crl: clients.crl")),
        listener(&format!("{{names: [{NAME}], min_version: \"1.3\"}}")),
    ];
    Setup::new(origin)
        .pair("a", &servers.server(&[NAME]))
        .file("ca.pem", ca[0])
        .file("other.pem", ca[1])
        .file("clients.crl", crl)
        .file("tickets.key", SECRET)
        .top("listeners", &format!("[{}]", all.join(", ")))
        .start()
        .await
}

/// rustls would resume a session that was made without a client's certificate where one is
/// required: F1 of edge.md.
#[tokio::test]
async fn ticket_of_another_policy_is_worth_nothing() {
    let (servers, clients, others) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("others"),
    );
    let (me, revoked) = (clients.client("me"), clients.client("revoked"));
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let crl = clients.revoke(&[&revoked]);
    let ca = [&*clients.pem, &*others.pem];
    let nodes = [
        node(&origin, &servers, &ca, &crl).await,
        node(&origin, &servers, &ca, &crl).await,
    ];
    let addresses = nodes.iter().map(Gateway::addresses).collect::<Vec<_>>();
    assert!(addresses.iter().all(|all| all.len() == 6), "{addresses:?}");
    let client = TlsClient::new(addresses[0][0], NAME);
    // The listener that a session is made at, the certificate it is made with, and the listeners
    // that refuse this client.
    const NONE: [usize; 3] = [1, 3, 4];
    let cases = [
        (0, None, &NONE[..]),
        (2, None, &NONE),
        (0, Some(&me), &[3]),
        (1, Some(&me), &[3]),
        (2, Some(&me), &[3]),
        (1, Some(&revoked), &[3, 4]),
        (2, Some(&revoked), &[3, 4]),
        (5, None, &NONE),
    ];
    let mut looked_at = 0;
    for (made_at, shows, refusing) in cases {
        for client in versions(&client) {
            let client = match shows {
                Some(certificate) => client.showing(certificate),
                None => client,
            };
            for node in 0..2 {
                for at in 0..6 {
                    let made = resumed(&client.clone().at(addresses[0][made_at])).await;
                    let Ok(_) = made else {
                        // The listener that speaks TLS 1.3 alone.
                        assert_eq!(made_at, 5);
                        continue;
                    };
                    let again = resumed(&client.at(addresses[node][at])).await;
                    let what = format!("{made_at} to {at} of node {node}, {}", shows.is_some());
                    match &again {
                        Err(_) if at == 5 => {}
                        Err(TlsFailure::Alert(_)) => assert!(refusing.contains(&at), "{what}"),
                        Err(other) => panic!("{what}: {other:?}"),
                        Ok(_) if refusing.contains(&at) => panic!("{what}: it was served"),
                        Ok(resumed) => assert_eq!(*resumed, made_at == at, "{what}"),
                    }
                    looked_at += 1;
                }
            }
        }
    }
    // The last case does not exist for TLS 1.2.
    assert_eq!(looked_at, 8 * 2 * 2 * 6 - 12);
}

#[tokio::test]
async fn another_secret_opens_nothing_and_an_old_one_still_does() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let servers = Authority::new("servers");
    let certificate = servers.server(&[NAME]);
    let node = async |keys: &str| {
        let tls =
            format!("{{certificates: [{{cert: a.crt, key: a.key}}], tickets: {{keys: {keys}}}}}");
        Setup::new(&origin)
            .pair("a", &certificate)
            .file("old.key", SECRET)
            .file("new.key", [9; 32])
            .listener("tls", &tls)
            .start()
            .await
    };
    let old = node("[old.key]").await;
    let both = node("[new.key, old.key]").await;
    let new = node("[new.key]").await;
    let random = node("[]").await;
    for client in versions(&TlsClient::new(old.address, NAME)) {
        for (from, to, opens) in [
            (&old, &both, true),
            (&old, &new, false),
            (&old, &random, false),
            (&both, &new, true),
            (&both, &old, false),
            (&random, &random, true),
        ] {
            let client = client.clone().anew();
            assert_eq!(resumed(&client.at(from.address)).await, Ok(false));
            assert_eq!(resumed(&client.at(to.address)).await, Ok(opens));
        }
    }
}

#[tokio::test]
async fn a_key_that_is_too_short_or_missing_is_refused() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let certificate = Authority::new("servers").server(&[NAME]);
    for (file, word) in [("short.key", "32"), ("nowhere.key", "nowhere.key")] {
        let tls =
            format!("{{certificates: [{{cert: a.crt, key: a.key}}], tickets: {{keys: [{file}]}}}}");
        let (dir, config) = Setup::new(&origin)
            .pair("a", &certificate)
            .file("short.key", [1; 31])
            .listener("tls", &tls)
            .write();
        let refused = Gateway::try_start(dir, &config, &[]).await.err().unwrap();
        assert_eq!(refused.code, Some(2), "{}", refused.log);
        assert!(refused.log.contains(word), "{}", refused.log);
    }
}

/// Each key seals for a second here; whoever comes more often than that is never cut off.
#[tokio::test]
async fn keys_rotate_without_a_gap_and_old_tickets_die() {
    let site = HttpsSite::start("tickets: {rotate: 2s}").await;
    let [old, new] = versions(&site.client());
    for client in [&old, &new] {
        assert_eq!(resumed(client).await, Ok(false));
    }
    let start = Instant::now();
    let mut again = 0;
    for step in 1..=30 {
        passed(start, Duration::from_millis(200 * step)).await;
        for client in [&old, &new] {
            assert_eq!(
                resumed(client).await,
                Ok(true),
                "after {:?}",
                start.elapsed()
            );
            again += 1;
        }
    }
    assert_eq!(again, 60, "over at least two changes of the key");
    let idle = Instant::now();
    passed(idle, Duration::from_secs(7)).await;
    for client in [&old, &new] {
        assert_eq!(resumed(client).await, Ok(false), "after three changes");
    }
}

#[tokio::test]
async fn tickets_survive_a_new_certificate() {
    let site = HttpsSite::start("reload_interval: 100ms").await;
    let clients = versions(&site.client());
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(false));
    }
    let new = site.authority.server(&[NAME]);
    let dir = site.gateway.dir();
    std::fs::write(dir.join("a.crt"), &new.pem).unwrap();
    std::fs::write(dir.join("a.key"), &new.key).unwrap();
    wait_for("the new certificate is shown", SOON, || async {
        let client = site.client();
        let shown = client.connect().await.unwrap().certificate();
        (shown == new.der).then_some(())
    })
    .await;
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(true));
    }
}

/// A site that requires certificates of clients, and looks at its files all the time.
async fn requiring(clients: &Authority, crl: &str) -> HttpsSite {
    let auth = "mode: require, ca: ca.pem, crl: clients.crl";
    let tls =
        format!("reload_interval: 100ms, policies: [{{names: [{NAME}], client_auth: {{{auth}}}}}]");
    let files = |setup: Setup| setup.file("ca.pem", &*clients.pem).file("clients.crl", crl);
    HttpsSite::with(&tls, files, |_| Reply::fresh("page")).await
}

#[tokio::test]
async fn a_session_of_other_authorities_is_worth_nothing_after_their_file_changed() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let lists = before.revoke(&[]) + &after.revoke(&[]);
    let site = requiring(&before, &lists).await;
    let clients = versions(&site.client()).map(|client| client.showing(&before.client("me")));
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(false));
        assert_eq!(resumed(client).await, Ok(true));
    }
    std::fs::write(site.gateway.dir().join("ca.pem"), &after.pem).unwrap();
    let new = site.client().showing(&after.client("me"));
    wait_for("the new authority counts", SOON, || async {
        resumed(&new).await.ok()
    })
    .await;
    for client in &clients {
        let refused = resumed(client).await;
        assert!(matches!(refused, Err(TlsFailure::Alert(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_resumes_nothing() {
    let authority = Authority::new("clients");
    let me = authority.client("me");
    let site = requiring(&authority, &authority.revoke(&[])).await;
    let clients = versions(&site.client()).map(|client| client.showing(&me));
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(false));
        assert_eq!(resumed(client).await, Ok(true));
    }
    let list = authority.revoke(&[&me]);
    std::fs::write(site.gateway.dir().join("clients.crl"), list).unwrap();
    let fresh = site.client().anew().showing(&me);
    wait_for("the list counts", SOON, || async {
        let fresh = fresh.clone().anew();
        resumed(&fresh).await.err()
    })
    .await;
    for client in &clients {
        let refused = resumed(client).await;
        assert!(matches!(refused, Err(TlsFailure::Alert(_))), "{refused:?}");
    }
    // A list that can't be read changes nothing, and is told once.
    let failures = "lamina_tls_reload_failures_total";
    let before = site.gateway.metric(failures, &[]).await;
    std::fs::write(site.gateway.dir().join("clients.crl"), "no list").unwrap();
    site.gateway
        .metric_until(failures, &[], |now| now > before)
        .await;
    // Ten looks later.
    passed(Instant::now(), Duration::from_secs(1)).await;
    assert_eq!(site.gateway.metric(failures, &[]).await, before + 1.0);
    assert!(resumed(&fresh).await.is_err());
    let good = site.client().anew().showing(&authority.client("you"));
    assert_eq!(resumed(&good).await, Ok(false));
}

#[tokio::test]
async fn a_certificate_that_has_expired_resumes_nothing() {
    let authority = Authority::new("clients");
    let site = requiring(&authority, &authority.revoke(&[])).await;
    let end = SystemTime::now() + Duration::from_secs(4);
    let me = authority.make(&Order::client("me").until(end));
    let clients = versions(&site.client()).map(|client| client.showing(&me));
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(false));
        assert_eq!(resumed(client).await, Ok(true));
    }
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    passed(Instant::now(), left + Duration::from_secs(1)).await;
    let asked = site.origin.count();
    for client in &clients {
        // It was asked for its certificate again, and may have had a newer one.
        let refused = resumed(client).await;
        assert!(matches!(refused, Err(TlsFailure::Alert(_))), "{refused:?}");
    }
    assert_eq!(site.origin.count(), asked);
}

/// A node whose tickets are shared through Redis: the first listener asks nobody for a certificate,
/// the second requires one.
async fn sharing_node(
    origin: &Origin,
    servers: &Certificate,
    redis: &Redis,
    seal: &str,
) -> Gateway {
    let tls = |policies: &str| {
        let tickets = "tickets: {shared: true, rotate: 2s}";
        let pair = "certificates: [{cert: a.crt, key: a.key}]";
        format!("{{address: \"127.0.0.1:0\", tls: {{{pair}, {tickets}, policies: [{policies}]}}}}")
    };
    let policy = format!("{{names: [{NAME}], client_auth: {{mode: require, ca: ca.pem}}}}");
    let cache = format!(
        "{{l2: {{seal_key: {seal}, redis: {{url: \"{}\"}}}}, inflight: {{wait_timeout: 10m}}}}",
        redis.url()
    );
    Setup::new(origin)
        .pair("a", servers)
        .file("ca.pem", Authority::new("clients").pem)
        .top("listeners", &format!("[{}, {}]", tls(""), tls(&policy)))
        .top("cache", &cache)
        .start()
        .await
}

#[tokio::test]
async fn nodes_agree_upon_secrets_in_redis_and_change_them_without_a_gap() {
    let (origin, redis) = (
        Origin::pages(|_| Reply::fresh("page")).await,
        Redis::start().await,
    );
    let certificate = Authority::new("servers").server(&[NAME]);
    let seal = "0123456789abcdef0123456789abcdef";
    let one = sharing_node(&origin, &certificate, &redis, seal).await;
    let other = sharing_node(&origin, &certificate, &redis, seal).await;
    let stranger = sharing_node(&origin, &certificate, &redis, &seal.replace('0', "9")).await;
    let at = |node: &Gateway| node.addresses();
    let client = TlsClient::new(at(&one)[0], NAME);
    // As soon as the secrets are there, each node resumes what the other one has begun.
    wait_for("sessions are shared", SOON, || async {
        let fresh = client.clone().anew();
        resumed(&fresh).await.ok()?;
        let again = resumed(&fresh.at(at(&other)[0])).await;
        (again == Ok(true)).then_some(())
    })
    .await;
    let clients = versions(&client);
    for client in &clients {
        assert_eq!(resumed(client).await, Ok(false));
    }
    let start = Instant::now();
    let mut again = 0;
    for step in 1..=30 {
        passed(start, Duration::from_millis(200 * step)).await;
        for client in &clients {
            let node = [&one, &other][usize::try_from(step % 2).unwrap()];
            let here = client.clone().at(at(node)[0]);
            assert_eq!(
                resumed(&here).await,
                Ok(true),
                "after {:?}",
                start.elapsed()
            );
            again += 1;
        }
    }
    assert_eq!(again, 60, "over at least two changes of the secret");
    for client in &clients {
        // Another policy, on either node.
        for node in [&one, &other] {
            let refused = resumed(&client.clone().at(at(node)[1])).await;
            assert!(matches!(refused, Err(TlsFailure::Alert(_))), "{refused:?}");
        }
        // Who has another seal key gets nothing from Redis.
        assert_eq!(
            resumed(&client.clone().at(at(&stranger)[0])).await,
            Ok(false)
        );
    }
    let keys = redis.cli(&["KEYS", "lamina:{acme}:tickets/*"]).await;
    assert!(
        (2..=6).contains(&keys.lines().count()),
        "old ones are gone: {keys}"
    );
    for key in keys.lines() {
        assert_ne!(redis.cli(&["PTTL", key]).await.trim(), "-1");
    }
}

#[tokio::test]
async fn sessions_go_on_while_redis_is_away() {
    let (origin, mut redis) = (
        Origin::pages(|_| Reply::fresh("page")).await,
        Redis::start().await,
    );
    let certificate = Authority::new("servers").server(&[NAME]);
    let seal = "0123456789abcdef0123456789abcdef";
    let node = sharing_node(&origin, &certificate, &redis, seal).await;
    redis.kill();
    let client = TlsClient::new(node.addresses()[0], NAME);
    passed(Instant::now(), Duration::from_secs(7)).await;
    assert_eq!(resumed(&client).await, Ok(false));
    assert_eq!(resumed(&client).await, Ok(true), "by secrets of its own");
}

#[test]
fn shared_tickets_need_a_redis_and_a_seal() {
    let validate = |tickets: &str, rest: &str| {
        let dir = tempfile::tempdir().unwrap();
        let certificate = Authority::new("servers").server(&[NAME]);
        std::fs::write(dir.path().join("a.crt"), certificate.pem).unwrap();
        std::fs::write(dir.path().join("a.key"), certificate.key).unwrap();
        std::fs::write(dir.path().join("t.key"), [1; 32]).unwrap();
        let yaml = format!(
            "version: 1\nlisteners:\n  - address: \"127.0.0.1:0\"\n    tls:\n      certificates: [{{cert: a.crt, key: a.key}}]\n      tickets: {tickets}\nadmin: {{address: \"127.0.0.1:0\"}}\nupstreams: {{o: \"http://127.0.0.1:9\"}}\nroutes: [{{name: r, upstream: o}}]\n{rest}"
        );
        let config = e2e::setup::write_config(dir.path(), &yaml);
        e2e::cli::run(&["validate", "-c", config.to_str().unwrap()])
    };
    let redis = "redis: {url: \"redis://127.0.0.1:9\"}";
    let seal = "seal_key: 0123456789abcdef";
    for (tickets, rest, word) in [
        ("{shared: true}", String::new(), "no Redis"),
        (
            "{shared: true}",
            format!("cache: {{l2: {{{redis}}}}}\n"),
            "seal_key_file",
        ),
        (
            "{shared: true, keys: [t.key]}",
            format!("cache: {{l2: {{{redis}, {seal}}}}}\n"),
            "beside `keys`",
        ),
    ] {
        let ran = validate(tickets, &rest);
        assert_eq!(ran.code, Some(2), "{}", ran.output());
        assert!(ran.output().contains(word), "{word}: {}", ran.output());
        assert!(
            ran.output().contains("tls.tickets.shared: "),
            "{}",
            ran.output()
        );
    }
    let ran = validate(
        "{shared: true}",
        &format!("cache: {{l2: {{{redis}, {seal}}}}}\n"),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}
