//! `soak_readers [SECONDS]`: clients that read 1 KB a second get their bodies, and clients that
//! stop reading are cut.
//!
//! A gateway with its usual limits stands before an origin. By each protocol ([`ways`]) bodies of
//! each kind ([`bodies`]) are read at a steady 1 KB/s for so many seconds, by default 3600; then
//! the rest is read at once, and every byte is compared ([`readers`]). Beside them clients stop
//! reading, again and again ([`stoppers`]). Prints Markdown, and fails when a reader was cut, or
//! when one that stopped was not.

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod bodies;
mod readers;
mod report;
mod stoppers;
mod ways;

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::gateway::Gateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, SecuredGateway};
use e2e::setup::Setup;
use tokio::task::JoinSet;

use bodies::{BodyKind, SoakBodies};
use report::ReadersReport;
use ways::{ClientWay, GatewayWays};

/// How it is called.
const USAGE: &str = "soak_readers [SECONDS]";
/// Each reader begins so much later than the one before, so that they do not move in step.
const APART: Duration = Duration::from_millis(37);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let seconds = match std::env::args().nth(1) {
        Some(given) => given.parse().context(USAGE)?,
        None => 3_600,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(soak(Duration::from_secs(seconds)));
    println!("{}", report.text());
    ensure!(report.is_good(), "the soak found something");
    Ok(())
}

async fn soak(span: Duration) -> ReadersReport {
    let bodies = SoakBodies::new(span);
    let origin = bodies.origin().await;
    let certificates = Certificates::new(&[NAME]);
    let gateway = setup(Setup::new(&origin), &certificates).start().await;
    let ways = GatewayWays::to(SecuredGateway {
        gateway,
        certificates,
    });
    let gateway = ways.gateway();
    ways.load(&BodyKind::Hit.path(ClientWay::TlsHttp1), &bodies)
        .await;
    let mut report = ReadersReport::new(span, gateway.resident_bytes());
    let mut reading = JoinSet::new();
    for (number, (way, kind)) in readers::all().enumerate() {
        let reader = readers::read(ways.clone(), way, kind, bodies.clone(), span);
        reading.spawn(async move {
            tokio::time::sleep(APART * number as u32).await;
            (way, kind, reader.await)
        });
    }
    let mut stopping = JoinSet::new();
    for way in ClientWay::ALL {
        stopping.spawn(stoppers::stop(ways.clone(), way, bodies.clone(), span));
    }
    while let Some(read) = reading.join_next().await {
        let (way, kind, outcome) = read.unwrap();
        eprintln!("{}, {}: {outcome:?}", way.name(), kind.name());
        report.read(way, kind, outcome);
        report.memory(gateway.resident_bytes());
    }
    while let Some(stopped) = stopping.join_next().await {
        report.stopped(stopped.unwrap());
    }
    report.ends(held(gateway).await);
    report
}

async fn held(gateway: &Gateway) -> f64 {
    gateway.metric("lamina_held_bytes", &[]).await
}

/// Everything as it is by default, but that there are two listeners: one with TLS and all
/// protocols, and one in clear text.
fn setup(setup: Setup, certificates: &Certificates) -> Setup {
    let files = certificates.files().into_iter();
    files
        .fold(setup, |setup, (name, content)| setup.file(name, content))
        .top(
            "listeners",
            "[{address: \"127.0.0.1:0\", protocols: [http1, http2, http3], \
               tls: {certificates: [{cert: server.crt, key: server.key}]}}, \
              {address: \"127.0.0.1:0\"}]",
        )
        .top("telemetry", "{log_format: json, access_log: off}")
        .top("cache", "{}")
        .route("{name: passed, match: {path: /passed/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
}
