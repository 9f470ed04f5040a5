//! Every attack of the suites, in turn and for minutes, beside normal load: no body of
//! the load may be wrong, the gateway may not end, and memory and descriptors must be
//! what they were.
//!
//! `soak_attacks [SECONDS] [tls]`, by default 600 and in clear text; with `tls` the same over TLS,
//! with clients of HTTP/3 beside those of HTTP/1 and HTTP/2, and attacks by frames of HTTP/3 and QUIC. Inside: `ways` leads to the gateway, `load` is the clients that behave and
//! check each byte, `attackers` those that do not, `report` what was seen.

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod attackers;
mod load;
mod report;
mod ways;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::attack::{held, origin};
use e2e::front::Front;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::rogue::Rogue;
use e2e::setup::Setup;

use report::{AttackReport, HeldSample};
use ways::AttackedGateway;

/// How it is called.
const USAGE: &str = "soak_attacks [SECONDS] [tls]";
/// Between two looks at the gateway.
const LOOK: Duration = Duration::from_secs(1);
/// The load alone, before the first look: connections are opened, the cache is filled.
const WARM_UP: Duration = Duration::from_secs(5);
/// The load alone, before the last look: longer than any deadline of the gateway's.
const CALM: Duration = Duration::from_secs(8);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let front = match std::env::args().nth(2).as_deref() {
        None => Front::Clear,
        Some("tls") => Front::Http3,
        Some(other) => anyhow::bail!("{other} is unknown; {USAGE}"),
    };
    let seconds = match std::env::args().nth(1) {
        Some(given) => given.parse().context(USAGE)?,
        None => 600,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(soak(Duration::from_secs(seconds), front));
    println!("{}", report.text());
    ensure!(report.is_good(), "the soak found something");
    Ok(())
}

async fn soak(span: Duration, front: Front) -> Arc<AttackReport> {
    let origin = Origin::pages(|seen| {
        let page = load::page(&seen.path).or_else(|| held::page(&seen.path));
        page.unwrap_or_else(|| Reply::ok("page").header("cache-control", "no-store"))
    })
    .await;
    let rogue = Rogue::start(origin::TABLES.into_iter().flatten()).await;
    let mut ways = AttackedGateway::open(setup(&origin, &rogue), front).await;
    let report = Arc::new(AttackReport::default());
    report::catch_panics(&report);
    let load = load::start(&ways, &report);
    tokio::time::sleep(WARM_UP).await;
    report.sample(sample(ways.gateway()));
    let attackers = attackers::start(&ways, &report);
    let end = Instant::now() + span;
    while Instant::now() < end && report.note_alive(ways.gateway()) {
        tokio::time::sleep(LOOK).await;
        origin.forget();
        rogue.forget();
        report.sample(sample(ways.gateway()));
    }
    drop(attackers);
    tokio::time::sleep(CALM).await;
    report.note_alive(ways.gateway());
    drop(load);
    report.sample(sample(ways.gateway()));
    report
}

fn sample(gateway: &Gateway) -> HeldSample {
    HeldSample {
        memory: gateway.resident_bytes(),
        files: gateway.open_files(),
    }
}

/// Deadlines are short, so that what stalls is shed within the calm; the upstreams are
/// apart, so that rogue answers take no place of the load's.
fn setup(origin: &Origin, rogue: &Rogue) -> Setup {
    let pool = "pool: {max_idle: 16, idle_timeout: 2s}";
    let timeouts = "timeouts: {first_byte: 2s, idle: 1s, total: 3s}";
    Setup::new(origin)
        .listener(
            "limits",
            "{header_timeout: 2s, body_timeout: 3s, idle_timeout: 5s}",
        )
        .top("telemetry", "{log_format: json, access_log: off}")
        // Small enough for the attackers' pages to push others out, and to be full soon.
        .top("cache", "{l1: {max_bytes: 48MiB}}")
        .upstream(
            "origin",
            &format!("{{targets: [\"{}\"], {pool}}}", origin.url()),
        )
        .upstream(
            "rogue",
            &format!("{{targets: [\"{}\"], {pool}, {timeouts}}}", rogue.url()),
        )
        .route("{name: off, match: {path: /off/*}, upstream: rogue, cache: off}")
        .route("{name: play, match: {path: /play/*}, upstream: rogue}")
        .route("{name: page, upstream: origin}")
}
