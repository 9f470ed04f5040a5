//! Targets that names lead to, with real name servers: addresses that come and go, name servers that
//! fail, and how often they are asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::name_server::{NameServer, SERVFAIL, loopback, refuse_all};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::scripted_names::{self, NameAnswer, NameData, NameRecord, ScriptedNameServer};
use e2e::setup::Setup;
use e2e::silent::FullBacklog;
use e2e::tls_origin::{FrontSettings, TestAuthority, TlsFront};
use e2e::wait::{SOON, wait_for, within};
use http::Method;
use serde_json::Value;
use tokio::sync::Notify;

/// Origins with the same port at 127.0.0.2, 127.0.0.3 and so on, each of which answers with its
/// last number.
async fn origins(count: u8) -> Vec<Origin> {
    let mut port = 0;
    let mut origins = Vec::new();
    for n in 2..2 + count {
        let address = SocketAddr::new(loopback(n), port);
        let origin = Origin::start_at(address, move |asked| async move {
            asked.read().await;
            Reply::ok(n.to_string())
        })
        .await;
        port = origin.address().port();
        origins.push(origin);
    }
    origins
}

fn setup(target: &str, names: &NameServer) -> Setup {
    setup_with(target, &names.resolver())
}

fn setup_with(target: &str, resolver: &str) -> Setup {
    let upstream = format!(
        "{{targets: [{target}], balance: {{by: round_robin, slow_start: 0s}}, {resolver}}}"
    );
    Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
}

fn dns(origins: &[Origin]) -> String {
    let port = origins[0].address().port();
    format!("{{dns: app.test, port: {port}}}")
}

async fn upstream(gateway: &Gateway) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/upstreams", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    all["upstreams"][0].clone()
}

/// The names of the targets, in their order.
async fn targets(gateway: &Gateway) -> Vec<String> {
    let upstream = upstream(gateway).await;
    let targets = upstream["targets"].as_array().unwrap().iter();
    let names = targets.map(|target| target["target"].as_str().unwrap().to_owned());
    names.collect()
}

/// Waits until requests are answered by exactly these origins.
pub async fn answered_by(gateway: &Gateway, expected: &[&str]) {
    let client = gateway.client();
    wait_for(&format!("{expected:?} answer"), SOON, || async {
        let mut answers = Vec::new();
        // Others may ask meanwhile, so that nobody sees all in turn.
        for _ in 0..8 * expected.len() {
            answers.push(client.get("/").await.text().to_owned());
        }
        answers.sort();
        answers.dedup();
        (answers == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_address_is_a_target_that_comes_and_goes() {
    let origins = origins(3).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2", "127.0.0.3"])]).await;
    let gateway = setup(&dns(&origins), &names).start().await;
    answered_by(&gateway, &["2", "3"]).await;
    let begun = Arc::new(Notify::new());
    let release = Arc::new(Notify::new());
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&release));
    origins[1].behave(move |asked| {
        let (tells, waits) = (Arc::clone(&tells), Arc::clone(&waits));
        async move {
            if asked.seen.path == "/slow" {
                tells.notify_one();
                waits.notified().await;
            }
            Reply::ok("3")
        }
    });
    // One of two goes to the slow one.
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let client = gateway.client();
            tokio::spawn(async move { client.get("/slow").await.text().to_owned() })
        })
        .collect();
    within("it is under way", SOON, begun.notified()).await;
    names.set(&[("app.test", &["127.0.0.2", "127.0.0.4"])]);
    answered_by(&gateway, &["2", "4"]).await;
    wait_for(
        "idle connections to the old address are closed",
        SOON,
        || async { (origins[1].open_connections() <= 1).then_some(()) },
    )
    .await;
    let before = origins[1].count();
    release.notify_waiters();
    let mut answers = Vec::new();
    for slow in slow {
        answers.push(slow.await.unwrap());
    }
    answers.sort();
    assert_eq!(answers, ["2", "3"], "what was under way ends");
    wait_for("its connection is closed, too", SOON, || async {
        (origins[1].open_connections() == 0).then_some(())
    })
    .await;
    assert_eq!(origins[1].count(), before, "and it gets nothing new");
    let metrics = gateway.admin(Method::GET, "/metrics", "").await.text;
    let counted = |n: usize| metrics.contains(&format!("target=\"{}\"", origins[n].address()));
    assert_eq!(
        [0, 1, 2].map(counted),
        [true, false, true],
        "series of gone targets end"
    );
}

/// Requests all the time, every one of which must be answered well.
struct SteadyLoad {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    work: tokio::task::JoinHandle<Vec<String>>,
}

impl SteadyLoad {
    fn begin(gateway: &Gateway) -> Self {
        let (ends, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (client, until, count) = (gateway.client(), Arc::clone(&ends), Arc::clone(&answered));
        let work = tokio::spawn(async move {
            let mut failed = Vec::new();
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            while !until.load(Ordering::SeqCst) {
                let answer = client.get("/").await;
                if answer.status != 200 {
                    failed.push(format!("{} {}", answer.status, answer.text()));
                }
                count.fetch_add(1, Ordering::SeqCst);
                pace.tick().await;
            }
            failed
        });
        Self {
            ends,
            answered,
            work,
        }
    }

    async fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        assert_eq!(self.work.await.unwrap(), Vec::<String>::new());
        assert!(self.answered.load(Ordering::SeqCst) > 20);
    }
}

/// For how long there was no new answer about the name.
/// An address that comes by a new answer of the name server begins with less than its share, and one
/// that was there from the start does not.
#[tokio::test]
async fn an_address_that_is_new_starts_slowly() {
    const REQUESTS: usize = 200;
    let origins = origins(3).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2", "127.0.0.3"])]).await;
    let slowly = "balance: {by: round_robin, slow_start: 10m}";
    let target = dns(&origins);
    let upstream = format!("{{targets: [{target}], {slowly}, {}}}", names.resolver());
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let client = gateway.client();
    let shares = async || {
        origins.iter().for_each(Origin::forget);
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/").await.status, 200);
        }
        [0, 1, 2].map(|n| origins[n].count())
    };
    answered_by(&gateway, &["2", "3"]).await;
    assert_eq!(shares().await, [REQUESTS / 2, REQUESTS / 2, 0]);
    names.set(&[("app.test", &["127.0.0.2", "127.0.0.3", "127.0.0.4"])]);
    wait_for("the new address is a target", SOON, || async {
        (targets(&gateway).await.len() == 3).then_some(())
    })
    .await;
    // A tenth of a share of 2.1 is 10 of 200; after a minute of ten it would be some 36.
    let seen = shares().await;
    assert!((1..=36).contains(&seen[2]), "{seen:?}");
    assert!(seen[0].abs_diff(seen[1]) <= 2, "{seen:?}");
}

/// RFC 8305: what does not answer at all is overtaken by the next address after a quarter of a second,
/// long before the time for connecting is over.
#[tokio::test]
async fn an_address_that_is_silent_is_overtaken() {
    // Each request needs a connection, and each connection begins with another address.
    let once = |_| async { Reply::ok("3").header("connection", "close") };
    let good = Origin::start_at(SocketAddr::new(loopback(3), 0), once).await;
    let port = good.address().port();
    let silent = FullBacklog::at(SocketAddr::new(loopback(2), port)).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2", "127.0.0.3"])]).await;
    let target = format!("http://app.test:{port}");
    let upstream = format!(
        "{{targets: [\"{target}\"], timeouts: {{connect: 5m}}, {}}}",
        names.resolver()
    );
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let client = gateway.client();
    let (start, mut answered) = (Instant::now(), 0);
    for _ in 0..4 {
        let answer = within("an answer", SOON, client.get("/")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "3"));
        answered += 1;
    }
    assert_eq!(answered, 4);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(500), "only {waited:?}");
    assert!(
        silent.is_full().await,
        "one of the addresses answered nobody"
    );
}

async fn stale_seconds(gateway: &Gateway) -> f64 {
    let labels = [("name", "app.test")];
    gateway.metric("lamina_dns_stale_seconds", &labels).await
}

/// Waits until the name servers have given no new answer for some seconds, and says what is told.
async fn stale(gateway: &Gateway) -> String {
    wait_for("the name is stale", SOON, || async {
        (stale_seconds(gateway).await >= 3.0).then_some(())
    })
    .await;
    let ready = gateway.admin(Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, 200);
    let ready: Value = serde_json::from_str(&ready.text).unwrap();
    assert_eq!(ready["state"], "degraded");
    ready["names"]["failing"][0]["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn confirmed(gateway: &Gateway) {
    wait_for("the name servers answer again", SOON, || async {
        (stale_seconds(gateway).await == 0.0).then_some(())
    })
    .await;
    let ready = gateway.admin(Method::GET, "/readyz", "").await;
    assert!(ready.text.contains("serving"), "{}", ready.text);
}

#[tokio::test]
async fn name_servers_that_fail_in_any_way_change_nothing() {
    let origins = origins(2).await;
    let known: &[(&str, &[&str])] = &[("app.test", &["127.0.0.2", "127.0.0.3"])];
    let mut names = NameServer::start(known).await;
    let gateway = setup(&dns(&origins), &names).start().await;
    answered_by(&gateway, &["2", "3"]).await;
    let load = SteadyLoad::begin(&gateway);

    names.set(&[("other.test", &["127.0.0.2"])]);
    assert!(stale(&gateway).await.contains("does not exist"), "NXDOMAIN");
    answered_by(&gateway, &["2", "3"]).await;
    names.set(known);
    confirmed(&gateway).await;

    names.stop();
    assert!(stale(&gateway).await.contains("no answer"), "a closed port");
    refuse_all(names.address, SERVFAIL);
    // The last failure is told, of however many.
    wait_for("SERVFAIL is told", SOON, || async {
        let ready = gateway.admin(Method::GET, "/readyz", "").await.text;
        ready.contains("Server Failure").then_some(())
    })
    .await;
    answered_by(&gateway, &["2", "3"]).await;
    load.end().await;
    let told = gateway.log().into_iter();
    let told = told.filter(|line| line.contains("has no new answer"));
    assert_eq!(told.count(), 2, "once for each outage");
}

#[tokio::test]
async fn a_name_server_that_hangs_changes_nothing() {
    let origins = origins(2).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2", "127.0.0.3"])]).await;
    let gateway = setup(&dns(&origins), &names).start().await;
    answered_by(&gateway, &["2", "3"]).await;
    let load = SteadyLoad::begin(&gateway);
    names.freeze();
    stale(&gateway).await;
    answered_by(&gateway, &["2", "3"]).await;
    names.thaw();
    names.set(&[("app.test", &["127.0.0.3"])]);
    confirmed(&gateway).await;
    answered_by(&gateway, &["3"]).await;
    load.end().await;
}

#[tokio::test]
async fn addresses_that_do_not_answer_either_are_dropped_after_the_hold() {
    let mut origins = origins(2).await;
    let known: &[(&str, &[&str])] = &[("app.test", &["127.0.0.2", "127.0.0.3"])];
    let names = NameServer::start(known).await;
    let gateway = setup_with(
        &dns(&origins),
        &names.resolver().replace("1s", "1s, hold: 2s"),
    )
    .start()
    .await;
    answered_by(&gateway, &["2", "3"]).await;
    origins[1].stop().await;
    names.set(&[]);
    // Requests show that it does not answer.
    let client = gateway.client();
    wait_for("the silent address is dropped", SOON, || async {
        client.get("/").await;
        (targets(&gateway).await.len() == 1).then_some(())
    })
    .await;
    stale(&gateway).await;
    assert_eq!(
        targets(&gateway).await,
        [origins[0].address().to_string()],
        "the other one stays"
    );
    origins[1].start_again().await;
    names.set(known);
    answered_by(&gateway, &["2", "3"]).await;
}

#[tokio::test]
async fn a_start_with_a_name_that_nobody_knows_succeeds() {
    let origins = origins(1).await;
    let names = NameServer::start(&[]).await;
    let gateway = setup(&dns(&origins), &names).start().await;
    let client = gateway.client();
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.header("proxy-status").contains("dns_error"),
        "{answer:?}"
    );
    let ready = gateway.admin(Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.text.contains("degraded") && ready.text.contains("app.test"),
        "{}",
        ready.text
    );
    names.set(&[("app.test", &["127.0.0.2"])]);
    wait_for("it serves", SOON, || async {
        (client.get("/").await.status == 200).then_some(())
    })
    .await;
    confirmed(&gateway).await;
}

/// What was stored before the upstream had that name is served; all else is refused.
#[tokio::test]
async fn while_nobody_knows_the_name_stale_copies_are_served() {
    let origin = Origin::start_at(SocketAddr::new(loopback(2), 0), |_| async {
        Reply::ok("page").header("cache-control", "max-age=0, stale-if-error=3600")
    })
    .await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2"])]).await;
    let leading_to = |name: &str| {
        let target = format!("{{dns: {name}, port: {}}}", origin.address().port());
        let upstream = format!("{{targets: [{target}], {}}}", names.resolver());
        Setup::default()
            .upstream("shop", &upstream)
            .route("{name: shop, upstream: shop}")
    };
    let gateway = leading_to("app.test").start().await;
    let client = gateway.client();
    assert_eq!(client.get("/page").await.text(), "page");
    gateway.write(&leading_to("new.test"));
    let reloaded = gateway.reload().await;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    origin.forget();
    for _ in 0..3 {
        let answer = client.get("/page").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    }
    let none = client.get("/other").await;
    assert_eq!(none.status, 503);
    assert!(
        none.header("proxy-status").contains("dns_error"),
        "{none:?}"
    );
    assert_eq!(origin.count(), 0, "nobody knows where it is");
    let ready = gateway.admin(Method::GET, "/readyz", "").await;
    assert!(ready.text.contains("degraded"), "{}", ready.text);
    names.set(&[("new.test", &["127.0.0.2"])]);
    wait_for("it serves", SOON, || async {
        (client.get("/other").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_is_asked_for_once_for_all_upstreams_and_by_its_time_to_live() {
    let origins = origins(1).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2"])]).await;
    let port = origins[0].address().port();
    let mut setup = Setup::default();
    for n in 0..4 {
        let target = match n {
            0 => format!("\"http://app.test:{port}\""),
            _ => dns(&origins),
        };
        let upstream = format!("{{targets: [{target}], {}}}", names.resolver());
        setup = setup.upstream(&format!("u{n}"), &upstream).route(&format!(
            "{{name: r{n}, match: {{path: /{n}}}, upstream: u{n}, cache: off}}"
        ));
    }
    let gateway = setup.start().await;
    let began = std::time::Instant::now();
    let client = gateway.client();
    let mut requests = 0;
    wait_for("the name was asked for a few times", SOON, || {
        requests += 1;
        let (path, client, names) = (format!("/{}", requests % 4), client.clone(), &names);
        async move {
            assert_eq!(client.get(&path).await.status, 200);
            (names.asked("A", "app.test") >= 4).then_some(())
        }
    })
    .await;
    assert!(requests > 20, "{requests}");
    let (v4, v6) = (
        names.asked("A", "app.test"),
        names.asked("AAAA", "app.test"),
    );
    let most = began.elapsed().as_secs() as usize + 3;
    assert!(
        v4 <= most && v6 <= most,
        "{v4} and {v6} look-ups in {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn long_answers_come_over_tcp_and_are_bounded() {
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.9.8.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let names = NameServer::start(&[("app.test", &addresses)]).await;
    let upstream = |more: &str| {
        format!(
            "{{targets: [{{dns: app.test, port: 9}}], resolver: {{servers: [\"{}\"]{more}}}}}",
            names.address
        )
    };
    for (more, expected) in [("", 150), (", max_targets: 20", 20)] {
        let gateway = Setup::default()
            .upstream("shop", &upstream(more))
            .route("{name: shop, upstream: shop}")
            .start()
            .await;
        wait_for("there are targets", SOON, || async {
            (!targets(&gateway).await.is_empty()).then_some(())
        })
        .await;
        assert_eq!(targets(&gateway).await.len(), expected);
        let mut log = gateway.log().into_iter();
        let told = log.any(|line| line.contains("more targets than resolver.max_targets allows"));
        assert_eq!(told, expected == 20);
    }
}

#[tokio::test]
async fn services_say_port_weight_and_priority() {
    let mut names = NameServer::start(&[("a.test", &["127.0.0.1"])]).await;
    let mut origins = Vec::new();
    for name in ["first", "second", "spare"] {
        origins.push(Origin::pages(move |_| Reply::ok(name)).await);
    }
    let port = |n: usize| origins[n].address().port();
    let service = "_http._tcp.shop.test";
    let all = [
        (service, "a.test", port(0), 10, 30),
        (service, "a.test", port(1), 10, 10),
        (service, "a.test", port(2), 20, 10),
    ];
    names.set_services(&all).await;
    let gateway = setup(&format!("{{srv: {service}}}"), &names).start().await;
    let client = gateway.client();
    let mut answers = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..40 {
        *answers
            .entry(client.get("/").await.text().to_owned())
            .or_default() += 1;
    }
    let shares: Vec<_> = answers
        .iter()
        .map(|(name, count)| (&**name, *count))
        .collect();
    assert_eq!(shares, [("first", 30), ("second", 10)]);
    let shown = upstream(&gateway).await;
    let spare = &shown["targets"][2];
    assert_eq!(
        (&spare["priority"], &spare["weight"]),
        (&20.into(), &10.0.into()),
        "{shown}"
    );
}

/// Seven targets, none for a while, and seven others: none changes nothing, and of the others each is
/// used as soon as they are known.
#[tokio::test]
async fn services_that_are_gone_for_a_while_cost_no_request() {
    const NAMES: [&str; 14] = [
        "a1", "a2", "a3", "a4", "a5", "a6", "a7", "b1", "b2", "b3", "b4", "b5", "b6", "b7",
    ];
    let mut names = NameServer::start(&[("a.test", &["127.0.0.1"])]).await;
    let service = "_http._tcp.shop.test";
    let (mut origins, mut records) = (Vec::new(), Vec::new());
    for name in NAMES {
        let origin = Origin::pages(move |_| Reply::ok(name)).await;
        records.push((service, "a.test", origin.address().port(), 10, 10));
        origins.push(origin);
    }
    let (first, others) = records.split_at(7);
    names.set_services(first).await;
    let gateway = setup(&format!("{{srv: {service}}}"), &names).start().await;
    answered_by(&gateway, &NAMES[..7]).await;
    let load = SteadyLoad::begin(&gateway);
    names.set_services(&[]).await;
    wait_for("the answer is missed", SOON, || async {
        let ready = gateway.admin(Method::GET, "/readyz", "").await.text;
        ready.contains(service).then_some(())
    })
    .await;
    assert_eq!(targets(&gateway).await.len(), 7);
    answered_by(&gateway, &NAMES[..7]).await;
    names.set_services(others).await;
    answered_by(&gateway, &NAMES[7..]).await;
    assert_eq!(targets(&gateway).await.len(), 7, "the others alone");
    load.end().await;
}

#[tokio::test]
async fn connections_of_a_url_with_a_name_follow_its_addresses() {
    let origins = origins(3).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2"])]).await;
    let url = format!("\"http://app.test:{}\"", origins[0].address().port());
    let gateway = setup(&url, &names).start().await;
    answered_by(&gateway, &["2"]).await;
    names.set(&[("app.test", &["127.0.0.3"])]);
    answered_by(&gateway, &["3"]).await;
    wait_for(
        "connections to the old address are closed",
        SOON,
        || async { (origins[0].open_connections() == 0).then_some(()) },
    )
    .await;
    assert_eq!(
        targets(&gateway).await,
        [format!("app.test:{}", origins[0].address().port())]
    );
    // An address where nobody listens is passed over.
    names.set(&[("app.test", &["127.0.0.4", "127.0.0.77"])]);
    answered_by(&gateway, &["4"]).await;
    assert_eq!(
        origins[2].last().header("host"),
        gateway.addresses()[0].to_string()
    );
}

#[tokio::test]
async fn doctor_says_what_name_servers_say() {
    let origins = origins(1).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2"])]).await;
    let (_dir, config) = setup(&dns(&origins), &names).write();
    let doctor = async || {
        let config = config.to_str().unwrap().to_owned();
        let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &config]));
        ran.await.unwrap().output()
    };
    let text = doctor().await;
    assert!(
        text.contains("the name app.test leads to 127.0.0.2"),
        "{text}"
    );
    assert!(
        text.contains(&format!("{} connected", origins[0].address())),
        "{text}"
    );
    names.set(&[]);
    let text = doctor().await;
    assert!(text.contains("app.test does not exist"), "{text}");
}

#[tokio::test]
async fn with_tls_the_certificate_is_that_of_the_name() {
    let authority = TestAuthority::new("A test");
    let origin = Origin::pages(|_| Reply::ok("page")).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.1"])]).await;
    for (certified, expected) in [("app.test", 200), ("other.test", 502)] {
        let front = FrontSettings::new(authority.certify(&[certified]));
        let front = TlsFront::before(origin.address(), front).await;
        let target = format!(
            "{{dns: app.test, port: {}, scheme: https}}",
            front.address().port()
        );
        let gateway = setup_with(
            &target,
            &format!("{}, tls: {{ca_file: ca.pem}}", names.resolver()),
        )
        .file("ca.pem", authority.pem())
        .start()
        .await;
        let answer = gateway.client().get("/").await;
        assert_eq!(answer.status, expected, "{certified}: {answer:?}");
        let asked_for = front.greetings().remove(0).sni;
        assert_eq!(asked_for.as_deref(), Some("app.test"));
    }
}

#[tokio::test]
async fn both_families_and_other_names_of_a_name_count() {
    let six = Origin::start_at("[::1]:0".parse().unwrap(), |_| async { Reply::ok("six") }).await;
    let port = six.address().port();
    let four = SocketAddr::new(loopback(2), port);
    let four = Origin::start_at(four, |_| async { Reply::ok("four") }).await;
    let names = NameServer::start(&[("app.test", &["::1", "127.0.0.2"])]).await;
    let alias = format!("{{dns: far.test, port: {port}}}");
    let gateway = setup(&alias, &names).start().await;
    answered_by(&gateway, &["four", "six"]).await;
    let expected = [four.address().to_string(), six.address().to_string()];
    assert_eq!(targets(&gateway).await, expected);
    names.set(&[("app.test", &["::1"])]);
    answered_by(&gateway, &["six"]).await;
    assert_eq!(targets(&gateway).await, [six.address().to_string()]);
}

#[tokio::test]
async fn a_start_with_a_name_server_that_hangs_does_not_wait_for_it() {
    let origins = origins(1).await;
    let names = NameServer::start(&[("app.test", &["127.0.0.2"])]).await;
    names.freeze();
    let port = origins[0].address().port();
    let by_name = format!("\"http://app.test:{port}\"");
    for target in [dns(&origins), by_name] {
        let gateway = setup_with(
            &target,
            &format!("{}, timeouts: {{connect: 300ms}}", names.resolver()),
        )
        .start()
        .await;
        let client = gateway.client();
        let answer = client.get("/").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("proxy-status").contains("dns_error"));
        names.thaw();
        wait_for("it serves", SOON, || async {
            (client.get("/").await.status == 200).then_some(())
        })
        .await;
        names.freeze();
    }
}

fn record(owner: &str, live: u32, data: NameData) -> NameRecord {
    let owner = owner.to_owned();
    NameRecord { owner, live, data }
}

/// A name for which a content network or a failover gives out an alias for a short time.
#[tokio::test]
async fn an_alias_is_asked_for_again_when_its_own_time_is_over() {
    let origins = origins(2).await;
    let last = Arc::new(AtomicUsize::new(2));
    let now = Arc::clone(&last);
    let names = ScriptedNameServer::start(move |asked| {
        let address = NameData::Address([127, 0, 0, now.load(Ordering::SeqCst) as u8].into());
        let alias = record("app.test", 1, NameData::Alias("real.test".to_owned()));
        NameAnswer::Records(match asked.records {
            scripted_names::A => vec![alias, record("real.test", 3_600, address)],
            _ => vec![alias],
        })
    })
    .await;
    for target in [
        dns(&origins),
        dns(&origins)
            .replace("dns: app.test, port: ", "url: \"http://app.test:")
            .replace('}', "\"}"),
    ] {
        last.store(2, Ordering::SeqCst);
        let gateway = setup_with(&target, &names.resolver()).start().await;
        answered_by(&gateway, &["2"]).await;
        last.store(3, Ordering::SeqCst);
        answered_by(&gateway, &["3"]).await;
    }
}

/// A host of a service that nobody answers about keeps its addresses and costs the others nothing.
#[tokio::test]
async fn hosts_of_a_service_that_cannot_be_found_out_do_not_hold_up_the_others() {
    // More than are asked for at the same time, too.
    for hosts in [6, 34] {
        with_silent_hosts(hosts).await;
    }
}

async fn with_silent_hosts(hosts: usize) {
    let origins = origins(2).await;
    let port = origins[0].address().port();
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = Arc::clone(&hangs);
    let names = ScriptedNameServer::start(move |asked| {
        let hanging = hanging.load(Ordering::SeqCst);
        let first = asked.name == "h0.test";
        if asked.records == scripted_names::SRV {
            let host = |n| NameData::Service(format!("h{n}.test"), port);
            let all = (0..hosts).map(|n| record("_http._tcp.shop.test", 1, host(n)));
            return NameAnswer::Records(all.collect());
        }
        if hanging && !first {
            return NameAnswer::Silence;
        }
        let last = if hanging { 3 } else { 2 };
        NameAnswer::Records(match asked.records {
            scripted_names::A => {
                let address = NameData::Address([127, 0, 0, last].into());
                vec![record(&asked.name, 1, address)]
            }
            _ => Vec::new(),
        })
    })
    .await;
    let service = "{srv: _http._tcp.shop.test}";
    let gateway = setup_with(service, &names.resolver()).start().await;
    answered_by(&gateway, &["2"]).await;
    hangs.store(true, Ordering::SeqCst);
    answered_by(&gateway, &["2", "3"]).await;
}

/// A look-up that lacks a host of a service counts for the floor, however long its records live.
#[tokio::test]
async fn a_host_of_a_service_that_is_found_out_later_is_used_soon() {
    const HOUR: u32 = 3_600;
    let origins = origins(2).await;
    let port = origins[0].address().port();
    let is_there = Arc::new(AtomicBool::new(false));
    let there = Arc::clone(&is_there);
    let names = ScriptedNameServer::start(move |asked| {
        let is_second = asked.name == "h1.test";
        if is_second && !there.load(Ordering::SeqCst) {
            return NameAnswer::Silence;
        }
        NameAnswer::Records(match asked.records {
            scripted_names::SRV => ["h0.test", "h1.test"]
                .map(|host| NameData::Service(host.to_owned(), port))
                .map(|data| record("_http._tcp.shop.test", HOUR, data))
                .into(),
            scripted_names::A => {
                let address = NameData::Address([127, 0, 0, 2 + u8::from(is_second)].into());
                vec![record(&asked.name, HOUR, address)]
            }
            _ => Vec::new(),
        })
    })
    .await;
    let service = "{srv: _http._tcp.shop.test}";
    let gateway = setup_with(service, &names.resolver()).start().await;
    answered_by(&gateway, &["2"]).await;
    is_there.store(true, Ordering::SeqCst);
    answered_by(&gateway, &["2", "3"]).await;
}

/// RFC 6891 §7: who does not know EDNS says FORMERR, and is asked without it.
#[tokio::test]
async fn a_name_server_without_edns_is_asked_without_it() {
    let origins = origins(1).await;
    let names = ScriptedNameServer::start(|asked| {
        if asked.has_edns {
            return NameAnswer::Refusal(scripted_names::FORM_ERROR);
        }
        NameAnswer::Records(match asked.records {
            scripted_names::A => vec![record(
                "app.test",
                1,
                NameData::Address([127, 0, 0, 2].into()),
            )],
            _ => Vec::new(),
        })
    })
    .await;
    let gateway = setup_with(&dns(&origins), &names.resolver()).start().await;
    answered_by(&gateway, &["2"]).await;
}

/// N2: another weight makes no other target of an address.
#[tokio::test]
async fn a_service_with_another_weight_keeps_its_health() {
    let mut names = NameServer::start(&[("a.test", &["127.0.0.1"])]).await;
    let well = Origin::pages(|_| Reply::ok("well")).await;
    let sick = Origin::pages(|_| Reply::ok("sick").status(503)).await;
    let service = "_http._tcp.shop.test";
    let records = |weight: u16| {
        let port = |origin: &Origin| origin.address().port();
        [&well, &sick].map(|origin| (service, "a.test", port(origin), 10, weight))
    };
    names.set_services(&records(10)).await;
    let more = format!(
        "{}, retry: {{budget: 100}}, health: {{passive: {{eject: 1h, max_eject: 1h}}}}",
        names.resolver()
    );
    let target = format!("{{srv: {service}}}");
    let gateway = setup_with(&target, &more).start().await;
    let client = gateway.client();
    let shown = async || {
        let all = upstream(&gateway).await;
        let targets = all["targets"].as_array().unwrap().clone();
        let name = sick.address().to_string();
        let named = targets.iter().find(|target| target["target"] == *name);
        named.unwrap().clone()
    };
    wait_for("it is ejected", SOON, || async {
        assert_eq!(client.get("/").await.status, 200);
        (shown().await["observed"] == "ejected").then_some(())
    })
    .await;
    names.set_services(&records(20)).await;
    wait_for("the weight is known", SOON, || async {
        (shown().await["weight"] == 20.0).then_some(())
    })
    .await;
    assert_eq!(shown().await["observed"], "ejected");
}
