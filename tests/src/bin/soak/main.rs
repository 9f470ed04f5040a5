//! `soak [--calls N] [--rate N] [--seconds N]`: what bad plugins do to everybody else.
//!
//! The real gateway has a plain cached route under steady load ([`plain`]) beside
//! routes whose key or loader plugin traps, and one whose loader never returns
//! ([`neighbours`]). A round has the plain route alone, beside harmless requests at the
//! traps' own pace, beside traps, and beside loops; rounds follow until all traps are
//! done. Prints Markdown and fails when one plain request failed. Decision: harmless
//! neighbours are the control, since any traffic on two cores costs the plain route
//! something; and all four take turns, since what else the machine does changes.

mod neighbours;
mod options;
mod plain;
mod report;

use std::ops::Range;
use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

use neighbours::NeighbourTraffic;
use options::SoakOptions;
use plain::{PLAIN, PlainRouteLoad, RequestTimes};
use report::SoakReport;

/// Traps of one round; the gateway's memory is noted after them.
const ROUND: u64 = 10_000;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let options = SoakOptions::from_arguments()?;
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

async fn soak(options: &SoakOptions) -> SoakReport {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        PLAIN => Reply::ok("x".repeat(1_024)).header("cache-control", "max-age=86400"),
        _ => Reply::ok("y").header("cache-control", "no-store"),
    })
    .await;
    let gateway = start(&origin).await;
    gateway.client().get(PLAIN).await;
    let span = Duration::from_secs(options.seconds);
    // Not counted: the first seconds warm the processor and the connections.
    alone(&gateway, span).await;
    let mut report = SoakReport::default();
    report.memory.push((0, gateway.resident_bytes()));
    for from in (0..options.calls).step_by(ROUND as usize) {
        let calls = from..(from + ROUND).min(options.calls);
        round(&gateway, options, calls.clone(), &mut report).await;
        report.memory.push((calls.end, gateway.resident_bytes()));
        eprintln!("{} of {} traps", calls.end, options.calls);
    }
    report.scrape = gateway.scrape().await;
    report
}

async fn round(
    gateway: &Gateway,
    options: &SoakOptions,
    calls: Range<u64>,
    report: &mut SoakReport,
) {
    let span = Duration::from_secs(options.seconds);
    report.alone.push(alone(gateway, span).await);
    let (plain, _) = beside(
        gateway,
        NeighbourTraffic::Harmless,
        calls.clone(),
        options.rate,
    )
    .await;
    report.harmless.push(plain);
    let (plain, odd) = beside(gateway, NeighbourTraffic::Traps, calls, options.rate).await;
    report.traps.push(plain);
    report.odd += odd;
    let plain = PlainRouteLoad::start(gateway.address);
    neighbours::loops(&gateway.client(), span).await;
    report.loops.push(plain.stop());
}

/// The plain route by itself.
async fn alone(gateway: &Gateway, span: Duration) -> RequestTimes {
    let plain = PlainRouteLoad::start(gateway.address);
    tokio::time::sleep(span).await;
    plain.stop()
}

/// The plain route beside requests of a kind; its times, and unexpected answers.
async fn beside(
    gateway: &Gateway,
    traffic: NeighbourTraffic,
    calls: Range<u64>,
    rate: u64,
) -> (RequestTimes, u64) {
    let plain = PlainRouteLoad::start(gateway.address);
    let odd = neighbours::pace(&gateway.client(), traffic, calls, rate).await;
    (plain.stop(), odd)
}

async fn start(origin: &Origin) -> Gateway {
    Setup::new(origin)
        .file("trap.wasm", guest::trapping())
        .file("loop.wasm", guest::looping())
        .top("telemetry", "{log_format: json, access_log: off}")
        .top(
            "plugins",
            "{trap: {file: trap.wasm, quarantine: {failures: 0}, on_error: {key: bypass, loader: error}}, \
              loop: {file: loop.wasm, quarantine: {failures: 0}, limits: {load_timeout: 200ms}, on_error: {loader: error}}}",
        )
        .route("{name: keyed, match: {path: /keyed/*}, upstream: origin, key: {plugin: trap}}")
        .route("{name: loaded, match: {path: /loaded/*}, upstream: origin, loader: {plugin: trap}}")
        .route("{name: looped, match: {path: /looped/*}, upstream: origin, loader: {plugin: loop}}")
        .route("{name: plain, upstream: origin}")
        .start()
        .await
}
