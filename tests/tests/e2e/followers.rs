//! Requests that wait for another one's load, and a leader whose request spoils it: each
//! of them gets what its own request deserves, and the origin never gets them all at once.

use e2e::client::{Ask, Failure, herd};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::guest::wrong::endless::looping;
use e2e::origin::{Origin, Seen};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;

use crate::l2::reads_below;

const FOLLOWERS: usize = 30;

/// An origin that answers by `page` after the gate, and fails for `x-odd`.
async fn origin(gate: &Gate, odd: fn(&Seen) -> Reply, page: fn() -> Reply) -> Origin {
    let gate = gate.clone();
    Origin::start(move |asked| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            match asked.seen.headers.contains_key("x-odd") {
                true => odd(&asked.seen),
                false => page(),
            }
        }
    })
    .await
}

/// Has `leader` lead, and all followers wait for it before the gate opens.
async fn led_by(gateway: &Gateway, gate: &Gate, leader: Ask) -> (u16, Vec<(u16, String)>) {
    let leading = tokio::spawn(leader.send());
    gate.reached_by(1).await;
    let client = gateway.client();
    let following = tokio::spawn(async move { herd(&client, FOLLOWERS, "/").await });
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| {
            n >= FOLLOWERS as f64
        })
        .await;
    gate.open();
    let leader = leading.await.unwrap().status.as_u16();
    let told = |answer: Result<e2e::client::Answer, Failure>| {
        let answer = answer.unwrap();
        (answer.status.as_u16(), answer.text().to_owned())
    };
    (
        leader,
        following.await.unwrap().into_iter().map(told).collect(),
    )
}

fn all_get(answers: &[(u16, String)], status: u16, what: &str) {
    let right = answers.iter().all(|answer| answer.0 == status);
    assert!(right, "{what}: {answers:?}");
}

/// Its name, the status that its client gets, and what the origin does.
type DislikedRequest = (&'static str, u16, fn(&Seen) -> Reply);

/// What an origin does to a request that it does not like.
const DISLIKES: [DislikedRequest; 7] = [
    ("hangs up", 502, |_| Reply::hang_up()),
    ("401", 401, |_| Reply::status_only(401)),
    ("403, no-store", 403, |_| {
        Reply::status_only(403).header("cache-control", "no-store")
    }),
    ("429, max-age", 429, |_| {
        Reply::status_only(429).header("cache-control", "max-age=60")
    }),
    ("431", 431, |_| Reply::status_only(431)),
    ("499", 499, |_| Reply::status_only(499)),
    ("two lengths", 502, |_| {
        Reply::ok("x")
            .header("content-length", "1")
            .header("content-length", "2")
    }),
];

#[tokio::test]
async fn what_the_leaders_request_brought_about_is_not_told_to_its_followers() {
    for (what, status, odd) in DISLIKES {
        for protocol in ["http1", "http2"] {
            if (what, protocol) == ("two lengths", "http2") {
                // The origin's own library does not let it.
                continue;
            }
            let gate = Gate::new();
            let origin = origin(&gate, odd, || Reply::fresh("page")).await;
            let upstream = format!("{{targets: [\"{}\"], protocol: {protocol}}}", origin.url());
            let gateway = Setup::default().upstream("origin", &upstream).start().await;
            let leader = gateway.client().request("/").header("x-odd", "1");
            let (leader, followers) = led_by(&gateway, &gate, leader).await;
            assert_eq!(leader, status, "{what} {protocol}");
            all_get(&followers, 200, what);
            assert_eq!(
                origin.count(),
                2,
                "{what} {protocol}: one of them asked for all"
            );
            assert!(
                gateway.client().get("/").await.is_hit(),
                "{what} {protocol}"
            );
        }
    }
}

/// A page that fails for everybody: each asks by itself, one after another.
#[tokio::test]
async fn each_follower_gets_the_failure_of_its_own_load() {
    let gate = Gate::new();
    let origin = origin(&gate, |_| Reply::hang_up(), Reply::hang_up).await;
    let gateway = Setup::new(&origin).start().await;
    let leader = gateway.client().request("/").header("x-odd", "1");
    let (leader, followers) = led_by(&gateway, &gate, leader).await;
    assert_eq!(leader, 502);
    all_get(&followers, 502, "all fail");
    assert_eq!(origin.count(), FOLLOWERS + 1);
    assert_eq!(origin.most_at_once(), 1, "never a stampede");
}

/// Nobody has read the leader's request yet: the failure is not its own.
#[tokio::test]
async fn a_failure_before_the_origin_reads_the_request_is_told_to_all() {
    let gate = Gate::new();
    let origin = origin(&gate, |_| Reply::ok("busy"), || Reply::fresh("page")).await;
    let upstream = format!(
        "{{targets: [\"{}\"], load: {{max_concurrent: 1, max_queued: 5, queue_timeout: 3s}}}}",
        origin.url()
    );
    let gateway = Setup::default().upstream("origin", &upstream).start().await;
    let busy = tokio::spawn(
        gateway
            .client()
            .request("/busy")
            .header("x-odd", "1")
            .send(),
    );
    gate.reached_by(1).await;
    for answer in herd(&gateway.client(), FOLLOWERS, "/").await {
        assert_eq!(answer.unwrap().status, 503);
    }
    let started = [("outcome", "start")];
    let loads = gateway.metric("lamina_cache_loads_total", &started).await;
    assert_eq!(loads, 2.0, "one load for all of them");
    gate.open();
    busy.await.unwrap();
}

/// What a request says of its user or of itself is nobody else's.
#[tokio::test]
async fn a_leader_whose_answer_is_its_own_by_its_request_frees_no_herd() {
    let policy = "{ttl: 60s, request_directives: honor}";
    for (name, value) in [
        ("authorization", "Basic eA=="),
        ("cookie", "session=1"),
        ("cache-control", "no-store"),
    ] {
        let gate = Gate::new();
        let origin = origin(&gate, |_| Reply::ok("x"), || Reply::ok("page")).await;
        let gateway = Setup::new(&origin).policy(policy).start().await;
        let leader = gateway.client().request("/").header(name, value);
        let (leader, followers) = led_by(&gateway, &gate, leader).await;
        assert_eq!(leader, 200, "{name}");
        all_get(&followers, 200, name);
        assert_eq!(origin.count(), 2, "{name}");
    }
}

/// A page that is refused to everybody must not make them wait for one another.
#[tokio::test]
async fn a_page_that_is_refused_to_each_does_not_queue_them_for_long() {
    // So many are asked for one after another, and the others side by side.
    const TURNS: usize = 4;
    let gates: [Gate; TURNS + 1] = std::array::from_fn(|_| Gate::new());
    let at_origin = gates.clone();
    let origin = Origin::start(move |asked| {
        let gate = at_origin[asked.number.min(TURNS)].clone();
        async move {
            gate.pass().await;
            Reply::status_only(401).header("cache-control", "no-store")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let leading = tokio::spawn(gateway.client().request("/").header("x-odd", "1").send());
    gates[0].reached_by(1).await;
    let client = gateway.client();
    let following = tokio::spawn(async move { herd(&client, FOLLOWERS, "/").await });
    let mut followed = 0;
    for (turn, gate) in gates[..TURNS].iter().enumerate() {
        gate.reached_by(1).await;
        // One of those who followed leads each later turn, and all who are left follow it.
        followed += FOLLOWERS - turn;
        gateway
            .metric_until("lamina_cache_coalesced_requests_total", &[], |n| {
                n >= followed as f64
            })
            .await;
        assert_eq!(origin.count(), turn + 1, "asked for in turn");
        gate.open();
    }
    // In turn, there would be one.
    gates[TURNS].reached_by(FOLLOWERS + 1 - TURNS).await;
    gates[TURNS].open();
    assert_eq!(leading.await.unwrap().status, 401);
    let answers = following.await.unwrap();
    assert_eq!(answers.len(), FOLLOWERS);
    for answer in answers {
        assert_eq!(answer.unwrap().status, 401, "all are refused");
    }
    assert_eq!(origin.count(), FOLLOWERS + 1);
}

/// A call that fails may have failed by what the plugin was asked.
#[tokio::test]
async fn each_follower_of_a_failed_loader_call_has_a_call_of_its_own() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let plugin = "{p: {file: bad.wasm, quarantine: {failures: 0}, limits: {load_timeout: 300ms}, \
                  on_error: {loader: stale_then_error}}}";
    let gateway = Setup::new(&origin)
        .file("bad.wasm", looping())
        .top("plugins", plugin)
        .route("{name: site, upstream: origin, loader: {plugin: p}}")
        .start()
        .await;
    for answer in herd(&gateway.client(), 8, "/").await {
        assert_eq!(answer.unwrap().status, 504);
    }
    let calls = [("plugin", "p"), ("phase", "load"), ("outcome", "timeout")];
    let calls = gateway.metric("lamina_plugin_calls_total", &calls).await;
    assert_eq!(calls, 8.0);
}

/// The lease of a load that failed is another node's turn.
#[tokio::test]
async fn a_leader_that_fails_on_one_node_leaves_the_load_to_those_who_wait_on_another() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = origin(&gate, |_| Reply::hang_up(), || Reply::fresh("page")).await;
    let patient = "read_timeout: 1m, write_timeout: 1m, lease: {ttl: 5m, wait_timeout: 5m}";
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\"}}, {patient}}}, inflight: {{wait_timeout: 10m}}}}",
        redis.url()
    );
    let setup = Setup::new(&origin).top("cache", &l2);
    let (one, other) = tokio::join!(setup.start(), setup.start());
    reads_below(&one).await;
    reads_below(&other).await;
    let ask = |gateway: &Gateway| gateway.client().request("/").host("site.example");
    let odd = tokio::spawn(ask(&one).header("x-odd", "1").send());
    gate.reached_by(1).await;
    let waiting: Vec<_> = (0..FOLLOWERS)
        .map(|_| tokio::spawn(ask(&other).send()))
        .collect();
    let busy = [("outcome", "busy")];
    other
        .metric_until("lamina_l2_leases_total", &busy, |n| n >= 1.0)
        .await;
    gate.open();
    assert_eq!(odd.await.unwrap().status, 502);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().text(), "page");
    }
    assert_eq!(origin.count(), 2);
}
