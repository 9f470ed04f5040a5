//! Reloads under load: another configuration each time, beside clients of HTTP/1, HTTP/2 and HTTP/3,
//! WebSockets, streams of events and uploads. No request may fail, and nothing may grow.
//!
//! `soak_reload [RELOADS] [SECONDS]`, by default 100 in 60 s. Inside: `variant` is the configuration
//! of one round, `report` what was seen; the clients are [`e2e::load`].

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod report;
mod variant;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load;
use e2e::origin::Origin;
use e2e::setup::write_config;
use http::Method;
use tokio::time::{MissedTickBehavior, interval};

use report::{ProcessSize, Report};
use variant::ConfigVariant;

/// How it is called.
const USAGE: &str = "soak_reload [RELOADS] [SECONDS]";
/// Reloads before the first look, so that everything that is made once is there.
const WARM_UP: u64 = 10;
/// The load alone, before the first look at the process and after the last reload.
const CALM: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let number = |nth: usize, usual: u64| match std::env::args().nth(nth) {
        Some(given) => given.parse::<u64>().context(USAGE),
        None => Ok(usual),
    };
    let (reloads, seconds) = (number(1, 100)?, number(2, 60)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(soak(reloads, Duration::from_secs(seconds)));
    println!("{}", report.text());
    ensure!(report.is_good(), "the soak found something");
    Ok(())
}

async fn soak(reloads: u64, span: Duration) -> Arc<Report> {
    let origin = Origin::start(load::answer).await;
    let certificates = Certificates::new(&[NAME, OTHER_NAME]);
    let variant = ConfigVariant::new(&origin, &certificates);
    let gateway = Arc::new(SecuredGateway {
        gateway: variant.setup(0).start().await,
        certificates,
    });
    let report = Arc::new(Report::default());
    let load = load::start(&gateway, &report.load);
    for round in 1..=WARM_UP {
        reload(&gateway.gateway, &variant, round, &report).await;
    }
    tokio::time::sleep(CALM).await;
    let before = growth(&gateway.gateway).await;
    report.load.begin();
    let mut turns = interval(span / u32::try_from(reloads.max(1)).unwrap_or(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1..=reloads {
        turns.tick().await;
        reload(&gateway.gateway, &variant, WARM_UP + round, &report).await;
        origin.forget();
    }
    report.load.end();
    tokio::time::sleep(CALM).await;
    report.grew(before, growth(&gateway.gateway).await);
    load.stop().await;
    report
}

async fn reload(gateway: &Gateway, variant: &ConfigVariant, round: u64, report: &Report) {
    write_config(gateway.dir(), &variant.setup(round).yaml());
    let path = "/v1/config/reload";
    let answer = gateway.admin(Method::POST, path, "").await;
    report.reloaded(round, &answer);
}

/// What must not grow.
async fn growth(gateway: &Gateway) -> ProcessSize {
    let threads = format!("/proc/{}/task", gateway.process_id());
    ProcessSize {
        resident_bytes: gateway.resident_bytes(),
        descriptors: gateway.open_files(),
        threads: std::fs::read_dir(threads).map_or(0, Iterator::count),
        old_engines: gateway.metric("lamina_config_old_engines", &[]).await,
    }
}
