//! One load a key: followers stream with the leader, and nobody's trouble is another's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use e2e::client::{Client, Failure, herd};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h2raw::{H2, code, get, reset};
use e2e::origin::Origin;
use e2e::reply::{Pieces, Reply};
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until, within};
use tokio::task::JoinHandle;

const PIECE: usize = 64 << 10;
const PIECES: usize = 16;

/// What `e2e::h2raw` asks for.
const HTTP2_HOST: &str = "attacker.test";

/// An origin whose first answer the test streams; further ones say `again`.
async fn one_stream(headers: &[(&str, &str)]) -> (Origin, Pieces) {
    let (reply, pieces) = Reply::stream();
    let reply = headers
        .iter()
        .fold(reply, |reply, (name, value)| reply.header(name, value));
    let reply = Mutex::new(Some(reply));
    let origin = Origin::pages(move |_| {
        reply
            .lock()
            .unwrap()
            .take()
            .unwrap_or_else(|| Reply::fresh("again"))
    })
    .await;
    (origin, pieces)
}

/// Clients that read the first bytes, count themselves, and go on to the end.
struct SlowReaders {
    started: Arc<AtomicUsize>,
    reading: Vec<JoinHandle<Result<Bytes, Failure>>>,
}

impl SlowReaders {
    fn start(client: &Client, n: usize, target: &'static str) -> Self {
        let started = Arc::new(AtomicUsize::new(0));
        let reading = (0..n)
            .map(|_| tokio::spawn(read(client.clone(), target, started.clone())))
            .collect();
        Self { started, reading }
    }

    /// Waits until all have read first bytes.
    async fn all_started(&self) {
        let n = self.reading.len();
        let what = format!("{n} clients have their first bytes");
        wait_until(&what, SOON * 3, || self.started.load(Ordering::SeqCst) == n).await;
    }

    async fn bodies(self) -> Vec<Result<Bytes, Failure>> {
        let mut bodies = Vec::new();
        for one in self.reading {
            bodies.push(within("a reader", SOON * 3, one).await.unwrap());
        }
        bodies
    }
}

async fn read(
    client: Client,
    target: &'static str,
    started: Arc<AtomicUsize>,
) -> Result<Bytes, Failure> {
    let mut streaming = client.request(target).try_open().await?;
    let first = streaming.at_least(1).await;
    started.fetch_add(1, Ordering::SeqCst);
    let rest = streaming.into_answer().await?;
    Ok([first, rest.body].concat().into())
}

fn piece(number: usize) -> Bytes {
    vec![b'a' + u8::try_from(number % 26).unwrap(); PIECE].into()
}

fn page() -> Bytes {
    (0..PIECES).flat_map(piece).collect()
}

async fn the_rest_of(page: Pieces) {
    for number in 1..PIECES {
        assert!(
            page.send(piece(number)).await,
            "piece {number} found no reader"
        );
    }
    page.finish().await;
}

async fn herd_on_a_cold_page(n: usize) {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let readers = SlowReaders::start(&gateway.client(), n, "/page");
    assert!(pieces.send(piece(0)).await);
    // The origin holds fifteen of sixteen pieces: what all have now, they had while it streamed.
    readers.all_started().await;
    the_rest_of(pieces).await;
    let whole = page();
    for body in readers.bodies().await {
        assert_eq!(body.unwrap(), whole);
    }
    assert_eq!(origin.count(), 1);
    let hit = gateway.client().get("/page").await;
    assert!(hit.is_hit() && hit.body == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_share_one_load_of_a_cold_page_while_it_streams() {
    herd_on_a_cold_page(1_000).await;
}

#[tokio::test]
async fn a_follower_says_that_it_was_collapsed() {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let leader = SlowReaders::start(&gateway.client(), 1, "/");
    pieces.send("first ").await;
    leader.all_started().await;
    let follower = gateway.client().request("/").open().await;
    let status = e2e::client::CacheStatus::of(&follower.headers);
    assert!(status.collapsed && status.fwd.is_some(), "{status:?}");
    pieces.send("last").await;
    pieces.finish().await;
    assert_eq!(follower.into_answer().await.unwrap().text(), "first last");
    assert_eq!(origin.count(), 1);
}

/// Leaves by HTTP/2, where the gateway notices it before it writes: who reads the answer to a
/// ping has had the reset before it handled.
async fn leaves(leader: &mut H2) {
    leader.write(reset(1, code::CANCEL)).await;
    for _ in 0..2 {
        assert!(leader.lives().await, "the connection stays");
    }
}

#[tokio::test]
async fn a_leader_whose_leaving_is_noticed_ends_nobody_elses_load() {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let mut leader = H2::open(gateway.address).await;
    leader.write(get(1, "/")).await;
    assert!(pieces.send(piece(0)).await);
    leader.heads(1).await;
    let follower = gateway.client().request("/").host(HTTP2_HOST).open().await;
    leaves(&mut leader).await;
    the_rest_of(pieces).await;
    assert_eq!(follower.into_answer().await.unwrap().body, page());
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_leader_whose_leaving_is_noticed_before_the_head_ends_nothing_either() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh("page")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let mut leader = H2::open(gateway.address).await;
    leader.write(get(1, "/")).await;
    gate.reached_by(1).await;
    leaves(&mut leader).await;
    let following = gateway.client().request("/").host(HTTP2_HOST).send();
    let following = tokio::spawn(following);
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n >= 1.0)
        .await;
    gate.open();
    assert_eq!(following.await.unwrap().text(), "page");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_leader_that_hangs_up_ends_nobody_elses_load() {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let leader_client = gateway.client().apart();
    let leading = tokio::spawn(async move { leader_client.request("/").open().await });
    assert!(pieces.send(piece(0)).await);
    let leader = leading.await.unwrap();
    let followers = SlowReaders::start(&gateway.client(), 20, "/");
    followers.all_started().await;
    drop(leader);
    the_rest_of(pieces).await;
    for body in followers.bodies().await {
        assert_eq!(body.unwrap(), page());
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_leader_that_hangs_up_before_the_head_ends_nothing_either() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh("page")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let leading = tokio::spawn(async move { client.get("/").await });
    gate.reached_by(1).await;
    leading.abort();
    let _ = leading.await;
    let client = gateway.client();
    let following = tokio::spawn(async move { client.get("/").await });
    gate.open();
    assert_eq!(following.await.unwrap().text(), "page");
    assert_eq!(origin.count(), 1);
}

/// A gateway before an origin that numbers its answers, which may not be shared.
async fn uncacheable(gate: &Gate) -> (Origin, Gateway) {
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok(format!("answer {}", asked.number)).header("cache-control", "no-store")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    (origin, gateway)
}

#[tokio::test]
async fn an_answer_that_may_not_be_shared_frees_its_followers() {
    let gate = Gate::new();
    let (origin, gateway) = uncacheable(&gate).await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { herd(&client, 20, "/").await });
    gate.reached_by(1).await;
    gate.open();
    let mut bodies: Vec<_> = asking
        .await
        .unwrap()
        .into_iter()
        .map(|answer| answer.unwrap().text().to_owned())
        .collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "an answer was shared");
    assert_eq!(origin.count(), 20);
}

#[tokio::test]
async fn after_it_the_next_burst_goes_side_by_side() {
    let gate = Gate::new();
    gate.open();
    let (_origin, gateway) = uncacheable(&gate).await;
    gateway.client().get("/").await;
    gate.shut();
    let client = gateway.client();
    let asking = tokio::spawn(async move { herd(&client, 10, "/").await });
    gate.reached_by(10).await;
    gate.open();
    assert!(
        asking
            .await
            .unwrap()
            .into_iter()
            .all(|answer| answer.is_ok())
    );
}

#[tokio::test]
async fn a_slow_reader_slows_nobody() {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let slow_client = gateway.client().apart();
    let opening = tokio::spawn(async move { slow_client.request("/").open().await });
    assert!(pieces.send(piece(0)).await);
    let slow = opening.await.unwrap();
    let others = SlowReaders::start(&gateway.client(), 10, "/");
    others.all_started().await;
    // 7 MiB, more than the sockets' buffers hold for one that does not read.
    let rest = 7 << 20;
    let sending = tokio::spawn(async move {
        for number in 0..rest / PIECE {
            assert!(pieces.send(piece(number)).await);
        }
        pieces.finish().await;
    });
    within("the load beside a slow reader", SOON, sending)
        .await
        .unwrap();
    for body in others.bodies().await {
        assert_eq!(body.unwrap().len(), PIECE + rest);
    }
    match slow.into_answer().await {
        Ok(answer) => assert_eq!(answer.body.len(), PIECE + rest),
        Err(Failure::Cut { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_follower_of_another_variant_gets_its_own() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh(format!("in {}", asked.seen.header("accept-language")))
                .header("vary", "accept-language")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let ask = |language: &'static str| {
        let ask = gateway
            .client()
            .request("/")
            .header("accept-language", language);
        tokio::spawn(ask.send())
    };
    let english = ask("en");
    gate.reached_by(1).await;
    let others: Vec<_> = ["de", "en", "fr", "de"]
        .map(|language| (language, ask(language)))
        .into_iter()
        .collect();
    gate.open();
    assert_eq!(english.await.unwrap().text(), "in en");
    for (language, asking) in others {
        assert_eq!(asking.await.unwrap().text(), format!("in {language}"));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_cut_for_all_and_never_stored() {
    let (origin, pieces) = one_stream(&[("cache-control", "max-age=60")]).await;
    let gateway = Setup::new(&origin).start().await;
    let readers = SlowReaders::start(&gateway.client(), 10, "/");
    pieces.send("half").await;
    readers.all_started().await;
    pieces.cut();
    for body in readers.bodies().await {
        assert!(matches!(body, Err(Failure::Cut { .. })), "{body:?}");
    }
    assert_eq!(gateway.client().get("/").await.text(), "again");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_never_stored() {
    let (origin, pieces) =
        one_stream(&[("cache-control", "max-age=60"), ("content-length", "100")]).await;
    let gateway = Setup::new(&origin).start().await;
    let readers = SlowReaders::start(&gateway.client(), 1, "/");
    pieces.send("half").await;
    readers.all_started().await;
    pieces.cut();
    assert!(readers.bodies().await.remove(0).is_err());
    assert_eq!(gateway.client().get("/").await.text(), "again");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn waiting_has_a_deadline_after_which_a_follower_loads_by_itself() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.number == 0 {
                held.pass().await;
            }
            Reply::fresh(format!("load {}", asked.number))
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {wait_timeout: 200ms}}")
        .start()
        .await;
    let client = gateway.client();
    let leading = tokio::spawn(async move { client.get("/").await });
    gate.reached_by(1).await;
    assert_eq!(gateway.client().get("/").await.text(), "load 1");
    gate.open();
    assert!(leading.await.unwrap().text().starts_with("load"));
}

#[tokio::test]
async fn a_load_that_fails_for_each_is_told_to_all_who_waited() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::hang_up()
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { herd(&client, 10, "/").await });
    gate.reached_by(1).await;
    gate.open();
    for answer in asking.await.unwrap() {
        assert_eq!(answer.unwrap().status, 502);
    }
}
