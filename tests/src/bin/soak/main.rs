//! `soak [--calls N] [--rate N] [--seconds N]`: what bad plugins do to everybody else.
//!
//! The real gateway has a plain cached route under steady load ([`plain`]) beside
//! routes whose key or loader plugin traps, and one whose loader never returns
//! ([`neighbours`]). Phases: the plain route alone, beside harmless requests at the
//! traps' own pace, beside N traps, beside loops, alone again. Prints Markdown and
//! fails when one plain request failed. Decision: harmless neighbours are the control,
//! since any traffic on two cores costs the plain route something; what counts is what
//! traps cost beyond that.

mod neighbours;
mod options;
mod plain;
mod report;

use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

use neighbours::{LOOPERS, Traffic};
use options::Options;
use plain::{Latencies, PLAIN, Plain};
use report::Report;

/// How often the gateway's memory is noted, in calls.
const EVERY: u64 = 10_000;

fn main() -> anyhow::Result<()> {
    let options = Options::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(soak(&options));
    println!("{}", report.text());
    match report.failures() {
        0 => Ok(()),
        n => anyhow::bail!("{n} requests of the plain route failed"),
    }
}

async fn soak(options: &Options) -> Report {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        PLAIN => Reply::ok("x".repeat(1_024)).header("cache-control", "max-age=86400"),
        _ => Reply::ok("y").header("cache-control", "no-store"),
    })
    .await;
    let gateway = start(&origin).await;
    gateway.client().get(PLAIN).await;
    let mut report = Report::default();
    let span = Duration::from_secs(options.seconds);
    for name in ["alone, to warm up", "alone"] {
        let plain = Plain::start(gateway.address);
        tokio::time::sleep(span).await;
        report.phase(name, plain.stop(), 0);
    }
    let calls = options.rate * options.seconds;
    let (plain, _) = beside(&gateway, options, calls, Traffic::Harmless, |_| {}).await;
    report.phase("beside harmless requests", plain, calls);
    let resident = |at| (at, gateway.resident_bytes());
    let mut memory = vec![resident(0)];
    let note = |at| memory.push((at, gateway.resident_bytes()));
    let (plain, odd) = beside(&gateway, options, options.calls, Traffic::Traps, note).await;
    report.phase("beside traps", plain, options.calls);
    report.memory = memory;
    report.odd = odd;
    let plain = Plain::start(gateway.address);
    let loops = neighbours::loops(&gateway.client(), span).await;
    report.phase(
        &format!("beside {LOOPERS} loaders that never return"),
        plain.stop(),
        loops,
    );
    let plain = Plain::start(gateway.address);
    tokio::time::sleep(span).await;
    report.phase("alone again", plain.stop(), 0);
    report.scrape = gateway.scrape().await;
    report
}

/// The plain route beside `calls` requests of a kind; its times, and unexpected answers.
async fn beside(
    gateway: &Gateway,
    options: &Options,
    calls: u64,
    traffic: Traffic,
    note: impl FnMut(u64),
) -> (Latencies, u64) {
    let plain = Plain::start(gateway.address);
    let client = gateway.client();
    let odd = neighbours::pace(&client, traffic, calls, options.rate, EVERY, note).await;
    (plain.stop(), odd)
}

async fn start(origin: &Origin) -> Gateway {
    Setup::new(origin)
        .file("trap.wasm", guest::trapping())
        .file("loop.wasm", guest::looping())
        .top("telemetry", "{log_format: json, access_log: off}")
        .top(
            "plugins",
            "{trap: {file: trap.wasm, on_error: {key: bypass, loader: error}}, \
              loop: {file: loop.wasm, limits: {load_timeout: 200ms}, on_error: {loader: error}}}",
        )
        .route("{name: keyed, match: {path: /keyed/*}, upstream: origin, key: {plugin: trap}}")
        .route("{name: loaded, match: {path: /loaded/*}, upstream: origin, loader: {plugin: trap}}")
        .route("{name: looped, match: {path: /looped/*}, upstream: origin, loader: {plugin: loop}}")
        .route("{name: plain, upstream: origin}")
        .start()
        .await
}
