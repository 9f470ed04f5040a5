//! What a service manager hears of a gateway: in which order, and when it hears nothing more.
//!
//! The manager is a socket that keeps every message, as systemd's for a unit with `Type=notify`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until};

/// A socket that hears what units say.
pub struct FakeManager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl FakeManager {
    fn at(path: &Path) -> Self {
        Self::on(UnixDatagram::bind(path).unwrap())
    }

    fn on(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    /// Keeps what has come; answers how many messages there are now.
    fn listen(&mut self) -> usize {
        let mut bytes = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.heard.push(message);
        }
        self.heard.len()
    }

    /// Forgets what has come so far.
    pub fn forget(&mut self) {
        self.listen();
        self.heard.clear();
    }

    fn count(&mut self, message: &str) -> usize {
        self.listen();
        self.heard.iter().filter(|heard| *heard == message).count()
    }

    pub async fn hears(&mut self, begin: &str) -> String {
        let mut found = None;
        wait_until(&format!("the manager hears {begin}"), SOON, || {
            self.listen();
            found = self
                .heard
                .iter()
                .find(|heard| heard.starts_with(begin))
                .cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// The messages without signs of life, each with its first line alone.
    pub fn order(&mut self) -> Vec<String> {
        self.listen();
        let told = self.heard.iter().filter(|heard| *heard != ALIVE);
        told.map(|heard| heard.lines().next().unwrap_or_default().to_owned())
            .collect()
    }
}

const ALIVE: &str = "WATCHDOG=1";

/// A manager with a socket in a folder, and a gateway's setup that tells it.
pub async fn managed(
    variables: &[(&str, &str)],
) -> (tempfile::TempDir, FakeManager, Origin, Setup) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let manager = FakeManager::at(&path);
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = variables.iter().fold(
        Setup::new(&origin).variable("NOTIFY_SOCKET", path.to_str().unwrap()),
        |setup, (name, value)| setup.variable(name, value),
    );
    (dir, manager, origin, setup)
}

async fn end(mut gateway: Gateway) {
    gateway.terminate();
    assert!(gateway.ended(SOON).await.success());
}

#[tokio::test]
async fn it_is_told_of_start_readiness_and_end_in_this_order() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let gateway = setup.start().await;
    let ready = manager.hears("READY=1").await;
    let address = gateway.address.to_string();
    assert!(ready.contains("STATUS=Serving http://"), "{ready}");
    assert!(ready.contains(&address), "{ready}");
    assert_eq!(gateway.client().get("/").await.status, 200);
    end(gateway).await;
    let stopping = manager.hears("STOPPING=1").await;
    let time = stopping
        .lines()
        .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let time: u64 = time.unwrap().parse().unwrap();
    assert!(
        time >= 60_000_000,
        "the drain_timeout of a minute: {stopping}"
    );
    let order = manager.order();
    assert_eq!(order.len(), 4, "{order:?}");
    assert!(order[0].starts_with("STATUS=Starting"), "{order:?}");
    assert_eq!(order[1..], ["FDSTORE=1", "READY=1", "STOPPING=1"]);
    assert_eq!(manager.count(ALIVE), 0, "no watchdog was asked for");
}

#[tokio::test]
async fn the_process_that_takes_over_is_named_as_the_main_one_and_speaks_from_then_on() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let setup = setup.top("server", &e2e::upgrade::server(""));
    let mut gateway = setup.start().await;
    manager.hears("READY=1").await;
    let new = gateway.upgrade().await;
    let told = manager.hears("MAINPID=").await;
    let main = format!("MAINPID={new}");
    assert_eq!(told.lines().next(), Some(&*main), "{told}");
    assert!(told.lines().any(|line| line == "READY=1"), "{told}");
    gateway.only_the_last_process(SOON).await;
    let mut after = Vec::new();
    wait_until("the new process is ready", SOON, || {
        let order = manager.order();
        let at = order.iter().position(|message| *message == main);
        after = order[at.unwrap() + 1..].to_vec();
        after.iter().any(|message| message == "READY=1")
    })
    .await;
    assert_eq!(
        after,
        ["FDSTORE=1", "READY=1"],
        "the old one says nothing more"
    );
    e2e::upgrade::terminate(new);
    manager.hears("STOPPING=1").await;
    e2e::upgrade::ended(new, SOON).await;
}

#[tokio::test]
async fn readiness_comes_after_plugins_are_compiled_and_listeners_open() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let gateway = setup
        .file("key.wasm", guest::plugin("unreachable", "unreachable", ""))
        .top("plugins", "{key: {file: key.wasm}}")
        .route("{name: site, upstream: origin, key: {plugin: key}}")
        .start()
        .await;
    manager.hears("READY=1").await;
    let answer = std::net::TcpStream::connect(gateway.address);
    assert!(answer.is_ok(), "{answer:?}");
    end(gateway).await;
}

/// The log of purges is read first, for half a second at most: then it serves without the tier.
#[tokio::test]
async fn readiness_waits_for_the_log_of_a_second_tier_that_hangs_but_not_for_long() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let redis = Redis::start().await;
    let l2 = format!("{{l2: {}}}", crate::l2::redis_at(&redis.url()));
    redis.freeze();
    let setup = setup.top("cache", &l2);
    let starting = setup.start();
    let looking = async {
        manager.hears("STATUS=Starting").await;
        let began = Instant::now();
        manager.hears("READY=1").await;
        began.elapsed()
    };
    let (gateway, waited) = tokio::join!(starting, looking);
    assert!(waited >= LOG_PATIENCE, "it was ready after {waited:?}");
    assert_eq!(gateway.client().get("/").await.status, 200);
    redis.thaw();
    crate::l2::reads_below(&gateway).await;
    end(gateway).await;
}

/// A bit less than half a second: the first message may be read late.
const LOG_PATIENCE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_gateway_that_can_not_start_never_says_that_it_is_ready() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!("[{{address: \"{}\"}}]", taken.local_addr().unwrap());
    let setup = setup.top("listeners", &listeners);
    let (dir, config) = setup.write();
    let refused = Gateway::try_start(dir, &config, setup.environment())
        .await
        .err();
    assert!(refused.unwrap().log.contains("is in use"));
    assert_eq!(manager.order().len(), 1, "{:?}", manager.heard);
    assert!(manager.order()[0].starts_with("STATUS=Starting"));
}

#[tokio::test]
async fn an_abstract_socket_is_told_too() {
    let name = format!("lamina-e2e-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = FakeManager::on(UnixDatagram::bind_addr(&address).unwrap());
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .variable("NOTIFY_SOCKET", &format!("@{name}"))
        .start()
        .await;
    manager.hears("READY=1").await;
    end(gateway).await;
}

#[tokio::test]
async fn signs_of_life_go_on_through_a_drain() {
    let (_dir, mut manager, origin, setup) = managed(&[("WATCHDOG_USEC", "200000")]).await;
    let gate = Gate::new();
    let at_origin = gate.clone();
    origin.behave(move |_| {
        let gate = at_origin.clone();
        async move {
            gate.pass().await;
            Reply::fresh("x")
        }
    });
    let gateway = setup.start().await;
    wait_until("there are signs of life", SOON, || manager.count(ALIVE) > 2).await;
    let client = gateway.client();
    let request = tokio::spawn(async move { client.get("/held").await });
    gate.reached_by(1).await;
    gateway.terminate();
    manager.hears("STOPPING=1").await;
    let before = manager.count(ALIVE);
    wait_until("and more of them", SOON, || {
        manager.count(ALIVE) > before + 2
    })
    .await;
    gate.open();
    assert_eq!(request.await.unwrap().status, 200);
}

/// A key plugin that loops holds the thread of its request, which has 20 s for it here.
#[tokio::test]
async fn there_is_no_sign_of_life_while_a_worker_hangs() {
    let (_dir, mut manager, _origin, setup) = managed(&[("WATCHDOG_USEC", "100000")]).await;
    let gateway = setup
        .file("loop.wasm", guest::looping())
        .top(
            "plugins",
            "{loop: {file: loop.wasm, limits: {key_timeout: 20s}}}",
        )
        .route("{name: hangs, match: {path: /hangs}, upstream: origin, key: {plugin: loop}}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    wait_until("there are signs of life", SOON, || manager.count(ALIVE) > 2).await;
    let client = gateway.client();
    let hangs = tokio::spawn(async move { client.get("/hangs").await });
    let (mut last, mut since) = (manager.count(ALIVE), Instant::now());
    // Twenty times the time between two signs.
    wait_until("no more of them come", SOON, || {
        let now = manager.count(ALIVE);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(1)
    })
    .await;
    assert!(!hangs.is_finished(), "the worker hung all the while");
    hangs.abort();
}

#[tokio::test]
async fn a_watchdog_of_another_process_gets_none() {
    let variables = [("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let (_dir, mut manager, _origin, setup) = managed(&variables).await;
    let gateway = setup.start().await;
    manager.hears("READY=1").await;
    end(gateway).await;
    manager.hears("STOPPING=1").await;
    assert_eq!(manager.count(ALIVE), 0);
}

/// Whatever becomes of a reload, it is over with `READY=1`; without the monotonic time in the first
/// message, systemd waits in vain from version 257 on.
#[tokio::test]
async fn a_reload_is_told_with_its_time_and_then_ready_whatever_comes_of_it() {
    let (_dir, mut manager, _origin, setup) = managed(&[]).await;
    let gateway = setup.start().await;
    manager.hears("READY=1").await;
    let before = monotonic_micros();
    for (outcome, status) in [
        ("applied", "Serving by the configuration "),
        ("invalid", "before: "),
    ] {
        manager.listen();
        manager.heard.clear();
        gateway.hang_up_until(outcome).await;
        let reloading = manager.hears("RELOADING=1").await;
        let mut times = reloading
            .lines()
            .filter_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let told: u64 = times.next().unwrap().parse().unwrap();
        assert!((before..=monotonic_micros()).contains(&told), "{reloading}");
        let ready = manager.hears("READY=1").await;
        assert!(ready.contains(status), "{ready}");
        let order = manager.order();
        let ends = [order.first(), order.last()].map(Option::unwrap);
        assert_eq!(ends, ["RELOADING=1", "READY=1"], "{order:?}");
        std::fs::write(gateway.dir().join("lamina.yaml"), "").unwrap();
    }
    end(gateway).await;
}

fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// The signals that a process handles by itself, by their numbers.
fn handles(process: u32, number: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

/// The number of SIGTERM, which is handled early in a start.
const TERM: u32 = 15;

/// Whoever changes a file does not know how far the gateway is.
#[tokio::test]
async fn a_reload_that_is_asked_for_during_the_start_is_made_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = FakeManager::at(&dir.path().join("notify"));
    // Nobody answers there, so the start waits for a while.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = silent.local_addr().unwrap();
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let cache = format!("{{l2: {{redis: {{url: \"redis://{store}\"}}}}}}");
    let (folder, config) = Setup::new(&origin).top("cache", &cache).write();
    let mut starting = process::Command::new(e2e::cli::binary());
    starting.args(["run", "-c"]).arg(&config);
    starting.env("NOTIFY_SOCKET", dir.path().join("notify"));
    let quiet = starting.stdout(process::Stdio::null());
    let mut gateway = quiet.stderr(process::Stdio::null()).spawn().unwrap();
    let id = gateway.id();
    wait_until("it handles signals", SOON, || handles(id, TERM)).await;
    let number = i32::try_from(id)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(number.unwrap(), rustix::process::Signal::HUP).unwrap();
    manager.hears("READY=1\nSTATUS=Serving http").await;
    manager.hears("RELOADING=1").await;
    manager
        .hears("READY=1\nSTATUS=Serving by the configuration")
        .await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    drop(folder);
}
