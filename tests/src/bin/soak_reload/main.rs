//! Reloads under load: another configuration each time, beside clients of HTTP/1, HTTP/2 and HTTP/3,
//! WebSockets, streams of events and uploads. No request may fail, and nothing may grow.
//!
//! `soak_reload [RELOADS] [SECONDS] [EVERY]`, by default 100 in 60 s. With `EVERY`, the listener gets
//! another certificate with each so manieth reload, and another process takes the place of the
//! gateway after it: `soak_reload 360 3600 6` does a reload each ten seconds and the others each
//! minute.
//!
//! `soak_reload nginx [RELOADS] [SECONDS]` and `soak_reload haproxy …` reload a server of others under
//! the clients that ask for pages, and tell what fails there (`peers`).
//!
//! With each tenth reload there is another certificate in any case. Inside: `report` is what was seen;
//! the clients, and the configuration of each round, are [`e2e::load`].

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod peers;
mod report;

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load::{self, ConfigVariant};
use e2e::origin::Origin;
use e2e::setup::write_config;
use e2e::upgrade::is_running;
use http::Method;
use tokio::time::{MissedTickBehavior, interval};

use peers::ReloadingPeer;
use report::{HitRatios, KeptHits, ProcessSize, ReloadReport};

/// How it is called.
const USAGE: &str =
    "soak_reload [RELOADS] [SECONDS] [EVERY], or soak_reload nginx|haproxy [RELOADS] [SECONDS]";
/// Reloads before the first look, so that everything that is made once is there.
const WARM_UP: u64 = 10;
/// How long earlier processes may take to end when their clients have left.
const ENDS: Duration = Duration::from_secs(120);
/// There is another certificate with each so manieth reload.
const RENEWAL: u64 = 10;
/// How long pages live at least, in seconds.
const LIFETIME: u64 = 60;
/// The load alone, before the first look at the process and after the last reload.
const CALM: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let mut arguments = std::env::args().skip(1).peekable();
    let is_name = |given: &String| given.parse::<u64>().is_err();
    let peer = arguments.next_if(is_name);
    let peer = peer.map(|name| ReloadingPeer::named(&name)).transpose()?;
    let mut number = |usual: u64| match arguments.next() {
        Some(given) => given.parse::<u64>().context(USAGE),
        None => Ok(usual),
    };
    let (reloads, seconds, every) = (number(100)?, number(60)?, number(0)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let span = Duration::from_secs(seconds);
    if let Some(peer) = peer {
        let seen = runtime.block_on(peers::soak(peer, reloads, span))?;
        println!("{reloads} reloads of {peer:?}; {}", seen.text());
        return Ok(());
    }
    let plan = SoakPlan {
        reloads,
        span,
        every: NonZeroU64::new(every),
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
    let variant = ConfigVariant::new(&origin, &certificates, LIFETIME);
    let gateway = Arc::new(SecuredGateway {
        gateway: variant.setup(0).start().await,
        certificates,
    });
    let report = Arc::new(ReloadReport::default());
    let load = load::start(&gateway, &report.load);
    for round in 1..=WARM_UP {
        reload(&gateway.gateway, &variant, round, &report).await;
    }
    let calm = report.load.pages();
    tokio::time::sleep(CALM).await;
    let before = growth(&gateway.gateway).await;
    let began = report.load.pages();
    report.load.begin();
    let mut turns = interval(plan.span / u32::try_from(plan.reloads.max(1)).unwrap_or(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut processes = vec![gateway.gateway.process_id()];
    for round in 1..=plan.reloads {
        turns.tick().await;
        let exchanges_all = plan.exchanges_all(round);
        if exchanges_all || round % RENEWAL == 0 {
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
    report.hits(HitRatios {
        before: began.hit_ratio_since(calm),
        during: report.load.pages().hit_ratio_since(began),
        kept: match plan.every {
            // Another process begins with an empty cache here.
            Some(_) => KeptHits::NotByDesign,
            None => KeptHits::Wanted,
        },
    });
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
