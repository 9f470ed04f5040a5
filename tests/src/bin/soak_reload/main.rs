//! Reloads under load: another configuration each time, beside clients of HTTP/1, HTTP/2 and HTTP/3,
//! WebSockets, streams of events and uploads. No request may fail, and nothing may grow.
//!
//! `soak_reload [RELOADS] [SECONDS] [EVERY]`, by default 100 in 60 s. With `EVERY`, the listener gets
//! another certificate with each so manieth reload, and another process takes the place of the
//! gateway after it: `soak_reload 360 3600 6` does a reload each ten seconds and the others each
//! minute.
//!
//! Inside: `variant` is the configuration of one round, `report` what was seen; the clients are
//! [`e2e::load`].

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod report;
mod variant;

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load;
use e2e::origin::Origin;
use e2e::setup::write_config;
use e2e::upgrade::is_running;
use http::Method;
use tokio::time::{MissedTickBehavior, interval};

use report::{ProcessSize, ReloadReport};
use variant::ConfigVariant;

/// How it is called.
const USAGE: &str = "soak_reload [RELOADS] [SECONDS] [EVERY]";
/// Reloads before the first look, so that everything that is made once is there.
const WARM_UP: u64 = 10;
/// How long earlier processes may take to end when their clients have left.
const ENDS: Duration = Duration::from_secs(120);
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
    let plan = SoakPlan {
        reloads,
        span: Duration::from_secs(seconds),
        every: NonZeroU64::new(number(3, 0)?),
    };
    let report = runtime.block_on(soak(&plan));
    println!("{}", report.text());
    ensure!(report.is_good(), "the soak found something");
    Ok(())
}

/// What is done.
struct SoakPlan {
    reloads: u64,
    span: Duration,
    /// With each so manieth reload there is another certificate, and another process after it.
    every: Option<NonZeroU64>,
}

impl SoakPlan {
    fn exchanges_all(&self, round: u64) -> bool {
        self.every.is_some_and(|every| round % every == 0)
    }
}

async fn soak(plan: &SoakPlan) -> Arc<ReloadReport> {
    let origin = Origin::start(load::answer).await;
    let certificates = Certificates::new(&[NAME, OTHER_NAME]);
    let variant = ConfigVariant::new(&origin, &certificates);
    let gateway = Arc::new(SecuredGateway {
        gateway: variant.setup(0).start().await,
        certificates,
    });
    let report = Arc::new(ReloadReport::default());
    let load = load::start(&gateway, &report.load);
    for round in 1..=WARM_UP {
        reload(&gateway.gateway, &variant, round, &report).await;
    }
    tokio::time::sleep(CALM).await;
    let before = growth(&gateway.gateway).await;
    report.load.begin();
    let mut turns = interval(plan.span / u32::try_from(plan.reloads.max(1)).unwrap_or(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut processes = vec![gateway.gateway.process_id()];
    for round in 1..=plan.reloads {
        turns.tick().await;
        let exchanges_all = plan.exchanges_all(round);
        if exchanges_all {
            write_files(gateway.gateway.dir(), &gateway.certificates.renewed());
        }
        reload(&gateway.gateway, &variant, WARM_UP + round, &report).await;
        if exchanges_all {
            let aged = growth(&gateway.gateway).await;
            report.load.swap_begins();
            processes.push(gateway.gateway.upgrade().await);
            report.load.swap_ends();
            report.took_over(aged);
        }
        origin.forget();
    }
    report.load.end();
    tokio::time::sleep(CALM).await;
    report.grew(before, growth(&gateway.gateway).await);
    load.stop().await;
    processes.pop();
    report.left_behind(still_running(&processes).await);
    report
}

fn write_files(dir: &Path, files: &[(&str, String)]) {
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
    }
}

/// How many of these are left when all have had the time to end.
async fn still_running(processes: &[u32]) -> usize {
    let left = || processes.iter().filter(|one| is_running(**one)).count();
    let begun = Instant::now();
    while left() > 0 && begun.elapsed() < ENDS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    left()
}

async fn reload(gateway: &Gateway, variant: &ConfigVariant, round: u64, report: &ReloadReport) {
    write_config(gateway.dir(), &variant.setup(round).yaml());
    let path = "/v1/config/reload";
    report.load.swap_begins();
    let answer = gateway.admin(Method::POST, path, "").await;
    report.load.swap_ends();
    report.reloaded(round, &answer);
}

/// What must not grow.
async fn growth(gateway: &Gateway) -> ProcessSize {
    let threads = format!("/proc/{}/task", gateway.current_process());
    ProcessSize {
        resident_bytes: gateway.resident_bytes(),
        descriptors: gateway.open_files(),
        threads: std::fs::read_dir(threads).map_or(0, Iterator::count),
        old_engines: gateway.metric("lamina_config_old_engines", &[]).await,
    }
}
