//! Take-overs under load: another process of the same program takes the place of the gateway each
//! time, one has a program that fails, and no request may fail.
//!
//! `soak_upgrade [TAKE-OVERS] [SECONDS]`, by default 20 in 60 s; the clients are [`e2e::load`].

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load::{self, LoadReport};
use e2e::origin::Origin;
use e2e::setup::Setup;
use e2e::upgrade::{is_running, script, server};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How it is called.
const USAGE: &str = "soak_upgrade [TAKE-OVERS] [SECONDS]";
/// The load alone, before the first take-over and after the last one.
const CALM: Duration = Duration::from_secs(3);
/// How long earlier processes may take to end when their clients have left.
const ENDS: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let number = |nth: usize, usual: u64| match std::env::args().nth(nth) {
        Some(given) => given.parse::<u64>().context(USAGE),
        None => Ok(usual),
    };
    let (turns, seconds) = (number(1, 20)?, number(2, 60)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(soak(turns, Duration::from_secs(seconds)))
}

async fn soak(turns: u64, span: Duration) -> anyhow::Result<()> {
    let origin = Origin::start(load::answer).await;
    let certificates = Certificates::new(&[NAME, OTHER_NAME]);
    let gateway = Arc::new(SecuredGateway {
        gateway: setup(&origin, &certificates).start().await,
        certificates,
    });
    let gateway_in_use = &gateway.gateway;
    let failing = script(&gateway_in_use.dir().join("failing"), "exit 1");
    let report = Arc::new(LoadReport::default());
    let clients = load::start(&gateway, &report);
    sleep(CALM).await;
    report.begin();
    let mut ticks = interval(span / u32::try_from(turns.max(1)).unwrap_or(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut processes, mut slowest) = (vec![gateway_in_use.process_id()], Duration::ZERO);
    for turn in 0..turns {
        ticks.tick().await;
        if turn == turns / 2 {
            let failed = gateway_in_use.try_upgrade(&["--binary", &failing]).await;
            ensure!(failed.code == Some(1), "a program that fails: {failed:?}");
        }
        let begun = Instant::now();
        report.swap_begins();
        processes.push(gateway_in_use.upgrade().await);
        report.swap_ends();
        slowest = slowest.max(begun.elapsed());
        origin.forget();
    }
    sleep(CALM).await;
    report.end();
    clients.stop().await;
    let last = processes.pop();
    let stopped = Instant::now();
    while processes.iter().any(|process| is_running(*process)) && stopped.elapsed() < ENDS {
        sleep(Duration::from_millis(100)).await;
    }
    let left = processes
        .iter()
        .filter(|process| is_running(**process))
        .count();
    println!(
        "{turns} take-overs and one that failed; the slowest took {:.2} s; earlier processes were \
         gone {:.1} s after their clients, {left} were left",
        slowest.as_secs_f64(),
        stopped.elapsed().as_secs_f64()
    );
    print!("{}", report.text());
    ensure!(last.is_some_and(is_running), "the last process has ended");
    ensure!(report.all_failed() == 0, "requests have failed");
    ensure!(left == 0, "earlier processes are left");
    Ok(())
}

fn setup(origin: &Origin, certificates: &Certificates) -> Setup {
    let secured = "{address: \"127.0.0.1:0\", protocols: [http1, http2, http3], \
                   tls: {certificates: [{cert: server.crt, key: server.key}]}}";
    let files = certificates.files().into_iter();
    let setup = files.fold(Setup::new(origin), |setup, (name, text)| {
        setup.file(name, text)
    });
    setup
        .top("server", &server(""))
        .top(
            "listeners",
            &format!("[{secured}, {{address: \"127.0.0.1:0\"}}]"),
        )
        .top("telemetry", "{log_format: json, access_log: off}")
        .route("{name: open, match: {path: /open/*}, upstream: origin, cache: off}")
        .route(
            "{name: pages, match: {path: /page/*}, upstream: origin, \
             policy: {mode: override, ttl: 1m, cookies: ignore}}",
        )
        .route("{name: rest, upstream: origin, cache: off}")
}
