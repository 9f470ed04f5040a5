//! The process is told to end while a guest loops, or hangs in what it waits for: it ends within
//! `drain_timeout`, and at once when it is told a second time.
//!
//! A guest can wait for something in a `load` alone: the other hooks refuse to wait (`plugin_wasi`).

use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::guest::wrong::endless;
use e2e::origin::Origin;
use e2e::process;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until};

/// Much longer than any drain here.
const FOR_EVER: &str = "limits: {key_timeout: 10m, hook_timeout: 10m, load_timeout: 10m}";
/// The drain that is configured where its end is waited for.
const DRAIN: Duration = Duration::from_secs(1);
/// How often a time is taken; the best counts, on a machine that others use.
const TIMES: usize = 3;
/// How much longer than its drain a process takes: its last words, and what the test itself does.
const MORE: Duration = Duration::from_secs(1);
/// Processor time by which a guest that loops is known.
const LOOPS: Duration = Duration::from_millis(200);

/// What a guest is stuck in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StuckIn {
    LoopOfKey,
    LoopOfRequest,
    LoopOfLoad,
    /// A fetch to which no answer comes.
    FetchOfLoad,
}

impl StuckIn {
    const ALL: [Self; 4] = [
        Self::LoopOfKey,
        Self::LoopOfRequest,
        Self::LoopOfLoad,
        Self::FetchOfLoad,
    ];

    /// Its file, further keys of the plugin, and the route that calls it.
    fn plugin(self) -> (Vec<u8>, &'static str, &'static str) {
        match self {
            Self::LoopOfKey => (
                endless::looping(),
                "on_error: {key: refuse}",
                "upstream: origin, key: {plugin: p}",
            ),
            Self::LoopOfRequest => (
                guest::built("asker"),
                "config: {rules: {/stuck: {loop: true}}}, on_error: {request: refuse}",
                "upstream: origin, request: {plugin: p}",
            ),
            Self::LoopOfLoad => (
                endless::looping(),
                "on_error: {loader: error}",
                "upstream: origin, loader: {plugin: p}",
            ),
            Self::FetchOfLoad => (
                guest::built("web"),
                "fetch: [origin], on_error: {loader: error}",
                "loader: {plugin: p}",
            ),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::FetchOfLoad => "/fetch?http://origin/never",
            _ => "/stuck",
        }
    }

    /// A gateway in which a guest is stuck so; its client waits as long as the task is there.
    async fn gateway(self, origin: &Origin, drain: &str) -> (Gateway, tokio::task::JoinHandle<()>) {
        let (wasm, more, route) = self.plugin();
        let gateway = Setup::new(origin)
            .file("p.wasm", wasm)
            .top("server", &format!("{{threads: 2, drain_timeout: {drain}}}"))
            .top(
                "plugins",
                &format!("{{p: {{file: p.wasm, {more}, {FOR_EVER}}}}}"),
            )
            .route(&format!("{{name: site, {route}}}"))
            .start()
            .await;
        let (worked, asked) = (process::cpu(gateway.process_id()), origin.count());
        let (client, path) = (gateway.client(), self.path());
        let waits = tokio::spawn(async move {
            let asked = client.request(path).host("a.example");
            _ = asked.try_send().await;
        });
        wait_until("the guest is stuck", SOON, || match self {
            Self::FetchOfLoad => origin.count() > asked,
            _ => process::cpu(gateway.process_id()) - worked >= LOOPS,
        })
        .await;
        (gateway, waits)
    }
}

async fn silent() -> Origin {
    Origin::start(|_| async { std::future::pending::<Reply>().await }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_ends_within_its_drain_whatever_a_guest_is_stuck_in() {
    let origin = silent().await;
    for stuck in StuckIn::ALL {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let (mut gateway, waits) = stuck.gateway(&origin, "1s").await;
            let told = Instant::now();
            gateway.terminate();
            gateway.ended(SOON).await;
            times.push(told.elapsed());
            waits.await.unwrap();
        }
        let best = times.iter().min().unwrap();
        assert!(*best <= DRAIN + MORE, "{stuck:?}: {times:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_at_once_whatever_a_guest_is_stuck_in() {
    let origin = silent().await;
    for stuck in StuckIn::ALL {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let (mut gateway, waits) = stuck.gateway(&origin, "10m").await;
            gateway.terminate();
            gateway
                .logged("it drains", |line| line.contains("draining: no new"))
                .await;
            assert!(gateway.is_running(), "{stuck:?}: a request is under way");
            let told = Instant::now();
            gateway.terminate();
            gateway.ended(SOON).await;
            times.push(told.elapsed());
            waits.await.unwrap();
        }
        let best = times.iter().min().unwrap();
        assert!(*best <= MORE, "{stuck:?}: {times:?}");
    }
}
