//! `lamina doctor` over every transport, with gateways of the same configuration at work on the
//! same broker; `doctor!(name, Broker)` at the end runs the suite for one more.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::cli;
use e2e::fleet::{Fleet, Pages, known, state};
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use serde_json::{Value, json};

use crate::bus_transport::Broker;
use crate::cluster::Configured;

/// A broker, and what can be looked at in it.
pub trait Doctored: Configured {
    /// The key that says where it is.
    const KEY: &str;

    /// Everything in it that outlives a message.
    async fn remains(&self) -> BTreeSet<String>;
}

/// All that a doctor may take, whatever stands still.
const LIMIT: Duration = Duration::from_secs(90);

/// What it said, and its exit code. `bus` is the YAML of the transport.
async fn doctor(name: &str, bus: &str) -> (Option<i32>, String) {
    // Slow is no failure here: the machine may be busy.
    let bus = format!("{{source: {name}, publish_timeout: 30s, heartbeat_interval: 300ms, {bus}}}");
    run(&bus).await
}

async fn run(bus: &str) -> (Option<i32>, String) {
    let origin = Origin::pages(|_| e2e::reply::Reply::ok("")).await;
    let (_dir, config) = Setup::new(&origin).top("bus", bus).write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || cli::run(&["doctor", "-c", &config]));
    let ran = within("the doctor ends", LIMIT, ran).await.unwrap();
    (ran.code, ran.output())
}

#[track_caller]
fn is_content((code, said): &(Option<i32>, String)) {
    assert_eq!(*code, Some(0), "{said}");
    for word in [
        "\n  connect ",
        "worst of 50",
        "\n  order          kept; ",
        "\n  reconnect ",
    ] {
        assert!(said.contains(word), "{word:?}: {said}");
    }
    assert!(said.contains(" arrived, 0 of them twice"), "{said}");
}

/// What a node says of itself that a doctor must not change.
async fn state_of(node: &Gateway) -> (String, usize, f64) {
    (
        state(node).await,
        known(node).await,
        node.metric("lamina_cluster_gaps_total", &[]).await,
    )
}

/// With patience enough for a busy machine: whoever takes a living line for dead connects anew, and a
/// gateway counts a gap then that no doctor has caused.
fn patient(bus: &str) -> String {
    let patience = [
        ("ping_interval: 300ms", "ping_interval: 20s"),
        ("silence_timeout: 1s", "silence_timeout: 20s"),
        ("heartbeat: 2s", "heartbeat: 20s"),
    ];
    let lengthened = |bus: String, (short, long)| bus.replace(short, long);
    patience.into_iter().fold(bus.to_owned(), lengthened)
}

pub async fn beside_gateways_at_work_it_harms_nobody<B: Doctored>() {
    let broker = B::shared().await;
    let port = broker.port();
    let fleet = Fleet::start(2, |name| patient(&broker.yaml(port, name))).await;
    let [a, b] = &fleet.nodes[..] else {
        panic!("two")
    };
    b.client().get("/p/1").await;
    let (before, had) = (
        (state_of(a).await, state_of(b).await),
        broker.remains().await,
    );
    let applied = async || b.metric("lamina_cluster_purges_total", &[]).await;
    let purges = applied().await;
    // As `a` itself, whose queue or consumer it must not touch.
    let bus = patient(&broker.yaml(port, "a"));
    let examined = tokio::spawn(async move { doctor("a", &bus).await });
    let mut told = 0;
    while !examined.is_finished() || told < 20 {
        a.purge(json!({"tag": format!("t{told}")})).await;
        b.purge(json!({"tag": format!("u{told}")})).await;
        told += 1;
    }
    is_content(&examined.await.unwrap());
    wait_for("every purge comes", SOON * 4, || async {
        (applied().await >= purges + f64::from(told)).then_some(())
    })
    .await;
    assert_eq!((state_of(a).await, state_of(b).await), before);
    let answer = b.client().get("/p/1").await;
    assert!(answer.is_hit(), "{:?}", answer.cache());
    left_behind(&broker, &had).await;
}

async fn left_behind<B: Doctored>(broker: &B, had: &BTreeSet<String>) {
    // A broker notes the end of a connection behind it.
    wait_for("nothing is left in the broker", SOON * 2, || async {
        (broker.remains().await == *had).then_some(())
    })
    .await;
}

pub async fn where_nothing_is_yet_nothing_is_left<B: Doctored>() {
    let broker = B::shared().await;
    let had = broker.remains().await;
    let examined = doctor("a", &broker.yaml(broker.port(), "a")).await;
    is_content(&examined);
    left_behind(&broker, &had).await;
}

#[track_caller]
fn names_the_place<B: Doctored>((code, said): &(Option<i32>, String), port: u16) {
    assert_eq!(*code, Some(1), "{said}");
    assert!(said.contains("FAILED"), "{said}");
    let place = format!("(bus.{}, line ", B::KEY);
    for word in [
        place.as_str(),
        &format!("127.0.0.1:{port}: "),
        "checks failed: event bus",
    ] {
        assert!(said.contains(word), "{word:?}: {said}");
    }
}

pub async fn a_broker_that_is_down_is_named_with_its_key<B: Doctored>() {
    let broker = B::shared().await;
    let port = free_port();
    let examined = doctor("a", &broker.yaml(port, "a")).await;
    names_the_place::<B>(&examined, port);
    assert!(
        examined.1.contains("is the server running?"),
        "{}",
        examined.1
    );
}

pub async fn a_broker_that_stands_still_is_given_up<B: Doctored>() {
    let broker = B::start().await;
    broker.freeze();
    let examined = doctor("a", &broker.yaml(broker.port(), "a")).await;
    broker.thaw();
    names_the_place::<B>(&examined, broker.port());
    assert!(
        examined.1.contains("does the server hang"),
        "{}",
        examined.1
    );
}

#[tokio::test]
async fn without_a_bus_it_says_that_purges_stay_here() {
    let origin = Pages::default().origin().await;
    let (_dir, config) = Setup::new(&origin).write();
    let ran = cli::run(&["doctor", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(ran.stdout.contains("event bus    none"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("purges reach only this node"),
        "{}",
        ran.stdout
    );
}

/// A configuration of JetStream over this server.
fn over(nats: &Nats, jetstream: &str) -> String {
    let url = nats.url();
    format!(
        "{{publish_timeout: 30s, nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: a{jetstream}}}}}}}"
    )
}

#[tokio::test]
async fn a_stream_that_is_not_as_configured_is_told() {
    let nats = Nats::start().await;
    let stream = json!({
        "name": "CACHE_INVALIDATIONS", "subjects": ["cache.invalidations"], "storage": "memory",
        "retention": "limits", "max_msgs": 5_000,
    });
    let made = "$JS.API.STREAM.CREATE.CACHE_INVALIDATIONS";
    nats.ask(made, &stream.to_string()).await;
    let (code, said) = run(&over(&nats, "")).await;
    assert_eq!(code, Some(1), "{said}");
    for word in [
        "storage is Memory, configured is File",
        "max_msgs is 5000, configured is -1",
        "(bus.nats.jetstream.stream, which is not set)",
        "\n  reconnect ",
    ] {
        assert!(said.contains(word), "{word:?}: {said}");
    }
    let (code, said) = run(&over(&nats, ", storage: memory, max_msgs: 5000")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("CACHE_INVALIDATIONS is as configured"),
        "{said}"
    );
    assert!(said.contains("\n  kept           5 of 5 arrived"), "{said}");
}

#[tokio::test]
async fn a_stream_that_nobody_is_to_make_is_missed() {
    let nats = Nats::start().await;
    let (code, said) = run(&over(&nats, ", ensure_stream: false")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("there is no stream CACHE_INVALIDATIONS"),
        "{said}"
    );
    assert!(said.contains("bus.nats.jetstream.stream"), "{said}");
}

#[tokio::test]
async fn an_event_that_the_server_refuses_is_told_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nats.conf");
    std::fs::write(&file, "max_payload: 8192\n").unwrap();
    let nats = Nats::start_with(&["--config", file.to_str().unwrap()]).await;
    let url = nats.url();
    let bus = format!(
        "{{publish_timeout: 30s, broadcast_set_max_bytes: 64KiB, nats: {{servers: [\"{url}\"]}}}}"
    );
    let (code, said) = run(&bus).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("largest event  FAILED"), "{said}");
    assert!(
        said.contains("(bus.broadcast_set_max_bytes, line "),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_another_type_is_told() {
    let broker = crate::bus_rabbitmq_broker::Plain::shared().await;
    let port = broker.port();
    let yaml = |name: &str, kind: &str| {
        let mut yaml = broker.yaml(port, name);
        yaml.truncate(yaml.rfind('}').unwrap());
        format!("{yaml}, exchange_type: {kind}}}")
    };
    let fleet = Fleet::start(1, |name| yaml(name, "topic")).await;
    let (code, said) = doctor("b", &yaml("b", "fanout")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exists with other properties"), "{said}");
    assert!(said.contains("(bus.rabbitmq.exchange, line "), "{said}");
    is_content(&doctor("b", &yaml("b", "topic")).await);
    assert_eq!(state(&fleet.nodes[0]).await, "serving");
}

impl Doctored for crate::bus_nats::Core {
    const KEY: &str = "nats.servers";

    /// What ends with a connection is all there is.
    async fn remains(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }
}

impl Doctored for crate::bus_nats::JetStream {
    const KEY: &str = "nats.servers";

    async fn remains(&self) -> BTreeSet<String> {
        let list = async |subject: &str, of: &str| -> Vec<String> {
            let answer = self.0.ask(subject, "").await;
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let names = answer[of].as_array().cloned().unwrap_or_default();
            names
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect()
        };
        let mut all = BTreeSet::new();
        for stream in list("$JS.API.STREAM.NAMES", "streams").await {
            let consumers = list(&format!("$JS.API.CONSUMER.NAMES.{stream}"), "consumers").await;
            all.extend(
                consumers
                    .iter()
                    .map(|consumer| format!("{stream} {consumer}")),
            );
            all.insert(stream);
        }
        all
    }
}

impl Doctored for crate::bus_redis::PubSub {
    const KEY: &str = "redis.url";

    async fn remains(&self) -> BTreeSet<String> {
        let said = self.0.cli(&["CLIENT", "LIST"]).await;
        // Without the client that asks.
        let clients = said.lines().filter(|line| !line.contains("cmd=client"));
        let ids = clients.filter_map(|line| line.split(' ').next());
        ids.map(str::to_owned).collect()
    }
}

impl<const DURABLE: bool> Doctored for crate::bus_rabbitmq_broker::Of<DURABLE> {
    const KEY: &str = "rabbitmq.url";

    /// Of this test's exchange, since others use the broker.
    async fn remains(&self) -> BTreeSet<String> {
        let exchanges = self
            .ctl(&["list_exchanges", "name", "--no-table-headers"])
            .await;
        let exchange = exchanges.lines().filter(|name| {
            let rest = name.strip_prefix(self.exchange.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let columns = [
            "list_bindings",
            "source_name",
            "destination_name",
            "--no-table-headers",
        ];
        let bindings = self.ctl(&columns).await;
        let of_ours = |line: &&str| line.split('\t').next() == Some(self.exchange.as_str());
        let bindings = bindings.lines().filter(of_ours);
        exchange.chain(bindings).map(str::to_owned).collect()
    }
}

macro_rules! doctor {
    ($name:ident, $broker:ty) => {
        doctor!(
            $name, $broker:
            beside_gateways_at_work_it_harms_nobody
            where_nothing_is_yet_nothing_is_left
            a_broker_that_is_down_is_named_with_its_key
            a_broker_that_stands_still_is_given_up
        );
    };
    ($name:ident, $broker:ty: $($fact:ident)+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $fact() {
                    super::$fact::<$broker>().await;
                }
            )+
        }
    };
}

doctor!(nats, crate::bus_nats::Core);
doctor!(jetstream, crate::bus_nats::JetStream);
doctor!(redis, crate::bus_redis::PubSub);
doctor!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
doctor!(rabbitmq_durable, crate::bus_rabbitmq_broker::Durable);
