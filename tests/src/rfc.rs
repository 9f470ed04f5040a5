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
pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use case::{Case, Table};
pub use origin::Stage;

use case::Step;
use clock::Clock;
use judge::Story;

use crate::front::{Front, inapplicable};
use crate::wait::{SOON, passed};

/// Cases at once.
const AT_ONCE: usize = 24;

/// Where the cases are played: the front, and an address that leads through it to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub front: Front,
    pub address: SocketAddr,
}

/// What came of the tables.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that hold, or are known not to.
    pub judged: usize,
    /// Cases that cannot apply over the front, and why.
    pub inapplicable: Vec<String>,
    /// What does not hold, by table, section and rule.
    pub faults: Vec<String>,
}

/// Plays every case of `tables` (name and table).
pub async fn play(tables: Vec<(String, Table)>, place: Place, stage: &Stage) -> Outcome {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = Vec::new();
    for (name, table) in tables {
        for (number, case) in table.cases.into_iter().enumerate() {
            let host = host(&name, number);
            let title = format!("{name} {}: {}", case.section, case.rule);
            let (places, stage) = (Arc::clone(&places), stage.clone());
            let pending = case.pending.clone();
            let task = tokio::spawn(async move {
                let _place = places.acquire_owned().await.expect("never closed");
                one(&case, &host, place, &stage).await
            });
            playing.push((title, pending, task));
        }
    }
    let mut outcome = Outcome::default();
    for (title, pending, task) in playing {
        let fault = match task.await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault),
            Err(panicked) => Some(panic_text(panicked)),
        };
        outcome.count(title, fault, pending, place.front);
    }
    outcome
}

/// The host of a table's case.
pub fn host(table: &str, number: usize) -> String {
    format!("{table}-{number:03}.test")
}

impl Outcome {
    fn count(
        &mut self,
        title: String,
        fault: Option<String>,
        pending: Option<String>,
        front: Front,
    ) {
        match (fault, pending, inapplicable::why(&title, front)) {
            (Some(_), _, Some(why)) => self.inapplicable.push(format!("{title}: {why}")),
            (None, _, Some(why)) => {
                let fault = format!("{title}\n    holds, but cannot apply: {why}");
                self.faults.push(fault);
            }
            (Some(fault), None, None) => self.faults.push(format!("{title}\n    {fault}")),
            (None, Some(why), None) => {
                let fault = format!("{title}\n    holds, but is pending: {why}");
                self.faults.push(fault);
            }
            _ => self.judged += 1,
        }
    }
}

/// One case, step by step.
async fn one(case: &Case, host: &str, place: Place, stage: &Stage) -> Result<(), String> {
    let scene = stage.enter(host, Clock::new(host, place.front));
    let mut story = Story::default();
    let mut last = Instant::now();
    for (number, step) in case.steps().iter().enumerate() {
        if let Some(millis) = step.wait {
            passed(last, Duration::from_millis(millis)).await;
        }
        let begun = Instant::now();
        let fault = loop {
            scene.begin(number + 1, step);
            let fault = attempt(step, place, &scene, &mut story).await;
            if fault.is_ok() || !step.eventually || begun.elapsed() > SOON {
                break fault;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        fault.map_err(|fault| format!("step {}: {fault}", number + 1))?;
        last = Instant::now();
    }
    Ok(())
}

async fn attempt(
    step: &Step,
    place: Place,
    scene: &origin::Scene,
    story: &mut Story,
) -> Result<(), String> {
    match exchange::exchange(place.address, step, &scene.clock).await {
        Some(got) => story.judge(step, scene, &got),
        // A reset overtakes what was sent before it, the head too (RFC 9000 §3.2).
        None if step.expect.cut && place.front == Front::Http3 => {
            story.remember(step, scene);
            Ok(())
        }
        None => Err("there is no answer".to_owned()),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}
