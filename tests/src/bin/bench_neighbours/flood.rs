//! What a neighbour does at a steady rate, in a process of its own that gives way to the client that
//! measures: `bench_neighbours flood KIND …` prints how much it has done.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{handshakes, misses};

/// A neighbour at work.
pub struct RunningFlood(Child);

/// How often a flood does what it does, and for how long.
#[derive(Clone, Copy)]
pub struct FloodRate {
    pub per_second: u64,
    pub span: Duration,
}

/// The most that is under way at once.
const AT_ONCE: usize = 64;
/// What is due begins together this often, and goes on for so long beyond the span that is measured.
const TICK: Duration = Duration::from_millis(5);
const MORE: Duration = Duration::from_secs(2);

/// Begins a flood of this kind, with the arguments that its kind has. It has lasted a second when
/// this returns.
pub fn begin(kind: &str, arguments: &[&str], rate: FloodRate) -> anyhow::Result<RunningFlood> {
    let seconds = (rate.span + MORE).as_secs();
    // The client that measures goes first on the core that they share.
    let child = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe()?)
        .args(["flood", kind])
        .args([rate.per_second.to_string(), seconds.to_string()])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the process of a flood")?;
    std::thread::sleep(MORE / 2);
    Ok(RunningFlood(child))
}

impl RunningFlood {
    /// Waits for its end. How much was done in the span that was measured, on average.
    pub fn made(self) -> anyhow::Result<u64> {
        let ended = self.0.wait_with_output()?;
        let said = String::from_utf8(ended.stdout)?;
        said.trim()
            .parse()
            .with_context(|| format!("it said {said:?}"))
    }
}

/// The process itself, with the arguments behind `flood`.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [kind, per_second, seconds, rest @ ..] = arguments else {
        bail!("flood KIND RATE SECONDS …");
    };
    let rate = FloodRate {
        per_second: per_second.parse()?,
        span: Duration::from_secs(seconds.parse()?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let made = match (&kind[..], rest) {
        ("handshakes", [address, name]) => {
            runtime.block_on(handshakes::all(address.parse()?, name, rate))
        }
        ("misses", [address, path]) => runtime.block_on(misses::all(address.parse()?, path, rate)),
        _ => {
            bail!("flood handshakes RATE SECONDS ADDRESS NAME, or misses RATE SECONDS ADDRESS PATH")
        }
    };
    let measured = rate.span.saturating_sub(MORE);
    println!(
        "{:.0}",
        made as f64 * measured.as_secs_f64() / rate.span.as_secs_f64()
    );
    Ok(())
}

/// Does this so many times a second. How often it was done.
pub async fn at_rate<F>(rate: FloodRate, act: impl Fn() -> F) -> u64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (places, made) = (
        Arc::new(Semaphore::new(AT_ONCE)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begin, mut begun) = (Instant::now(), 0);
    while begin.elapsed() < rate.span {
        ticks.tick().await;
        let due = (begin.elapsed().as_secs_f64() * rate.per_second as f64) as u64;
        while begun < due {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            begun += 1;
            let (act, made) = (act(), Arc::clone(&made));
            tokio::spawn(async move {
                act.await;
                made.fetch_add(1, Relaxed);
                drop(place);
            });
        }
    }
    // What is under way comes to its end.
    let _all = places.acquire_many(AT_ONCE as u32).await.unwrap();
    made.load(Relaxed)
}
