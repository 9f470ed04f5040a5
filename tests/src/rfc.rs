//! Plays tables of RFC cases: what the gateway must do, as data in `tests/data/rfc*.yaml`.
//!
//! A table is a list of cases ([`case`]); each has a host name of its own, by which the
//! origin ([`origin`]) knows whose answer to give, so that all cases share one gateway and
//! one origin and run side by side. Both ends are written by hand on sockets ([`wire`],
//! [`exchange`]): an answer without `Date`, a second `Age` line or a body that breaks off
//! arrives as the table has it. [`judge`] compares; faults are collected, not thrown, so
//! that one run names every rule that does not hold.

mod case;
mod clock;
mod exchange;
mod judge;
mod origin;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use case::{Case, Table};
pub use origin::Stage;

use case::Step;
use clock::Clock;
use judge::Story;

use crate::wait::{SOON, passed};

/// Cases at once.
const AT_ONCE: usize = 24;

/// Plays every case of `tables` (name and table); answers what does not hold, by table,
/// section and rule.
pub async fn play(tables: Vec<(String, Table)>, gateway: SocketAddr, stage: &Stage) -> Vec<String> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = Vec::new();
    for (name, table) in tables {
        for (number, case) in table.cases.into_iter().enumerate() {
            let host = format!("{name}-{number:03}.test");
            let title = format!("{name} {}: {}", case.section, case.rule);
            let (places, stage) = (Arc::clone(&places), stage.clone());
            let pending = case.pending.clone();
            let task = tokio::spawn(async move {
                let _place = places.acquire_owned().await.expect("never closed");
                one(&case, &host, gateway, &stage).await
            });
            playing.push((title, pending, task));
        }
    }
    let mut faults = Vec::new();
    for (title, pending, task) in playing {
        let fault = match task.await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault),
            Err(panicked) => Some(panic_text(panicked)),
        };
        match (fault, pending) {
            (Some(fault), None) => faults.push(format!("{title}\n    {fault}")),
            (None, Some(why)) => faults.push(format!("{title}\n    holds, but is pending: {why}")),
            _ => {}
        }
    }
    faults
}

/// One case, step by step.
async fn one(case: &Case, host: &str, gateway: SocketAddr, stage: &Stage) -> Result<(), String> {
    let scene = stage.enter(host, Clock::new(host));
    let mut story = Story::default();
    let mut last = Instant::now();
    for (number, step) in case.steps().iter().enumerate() {
        if let Some(millis) = step.wait {
            passed(last, Duration::from_millis(millis)).await;
        }
        let begun = Instant::now();
        let fault = loop {
            scene.begin(number + 1, step);
            let fault = attempt(step, gateway, &scene, &mut story).await;
            if fault.is_ok() || !step.eventually || begun.elapsed() > SOON {
                break fault;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        fault.map_err(|fault| format!("step {}: {fault}", number + 1))?;
        last = begun;
    }
    Ok(())
}

async fn attempt(
    step: &Step,
    gateway: SocketAddr,
    scene: &origin::Scene,
    story: &mut Story,
) -> Result<(), String> {
    let got = exchange::exchange(gateway, step, &scene.clock).await;
    story.judge(step, scene, &got)
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}
