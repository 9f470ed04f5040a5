//! Full handshakes of TLS 1.3 at a steady rate, in a process of its own: `bench_neighbours flood
//! ADDRESS NAME RATE SECONDS` prints how many it has made.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use e2e::tls::TlsClient;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Handshakes that are wanted.
#[derive(Clone, Copy)]
pub struct HandshakeFlood {
    /// Chooses the certificate.
    pub name: &'static str,
    pub per_second: u64,
}

/// Handshakes under way.
pub struct RunningFlood(Child);

/// The most that are under way at once.
const AT_ONCE: usize = 64;
/// They begin together this often, and go on for so long beyond the span that is measured.
const TICK: Duration = Duration::from_millis(5);
const MORE: Duration = Duration::from_secs(2);

/// Begins them. They have lasted a second when this returns.
pub fn flood(
    address: SocketAddr,
    wanted: HandshakeFlood,
    span: Duration,
) -> anyhow::Result<RunningFlood> {
    let this = std::env::current_exe()?;
    // The client that measures goes first on the core that they share.
    let child = Command::new("nice")
        .args(["-n", "10"])
        .arg(this)
        .arg("flood")
        .args([
            &address.to_string(),
            wanted.name,
            &wanted.per_second.to_string(),
        ])
        .arg((span + MORE).as_secs().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the process that does handshakes")?;
    std::thread::sleep(MORE / 2);
    Ok(RunningFlood(child))
}

impl RunningFlood {
    /// Waits for its end. How many were made in the span that was measured, on average.
    pub fn made(self) -> anyhow::Result<u64> {
        let ended = self.0.wait_with_output()?;
        let said = String::from_utf8(ended.stdout)?;
        said.trim()
            .parse()
            .with_context(|| format!("it said {said:?}"))
    }
}

/// The process itself.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [address, name, rate, seconds] = arguments else {
        bail!("flood ADDRESS NAME RATE SECONDS");
    };
    let client = TlsClient::new(address.parse()?, name).only_tls13();
    let (address, rate): (SocketAddr, u64) = (address.parse()?, rate.parse()?);
    let span = Duration::from_secs(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let made = runtime.block_on(handshakes(&client, address, rate, span));
    let measured = span.saturating_sub(MORE);
    println!(
        "{:.0}",
        made as f64 * measured.as_secs_f64() / span.as_secs_f64()
    );
    Ok(())
}

async fn handshakes(client: &TlsClient, address: SocketAddr, rate: u64, span: Duration) -> u64 {
    let (places, made) = (
        Arc::new(Semaphore::new(AT_ONCE)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begin, mut begun) = (Instant::now(), 0);
    while begin.elapsed() < span {
        ticks.tick().await;
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        while begun < due {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            begun += 1;
            let (client, made) = (client.clone().anew(), Arc::clone(&made));
            tokio::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let shaken = client.over(stream).await.unwrap();
                made.fetch_add(1, Relaxed);
                // Otherwise ports would be kept for a minute after each, and there are not so many.
                let _ = shaken.stream.get_ref().0.set_zero_linger();
                drop((shaken, place));
            });
        }
    }
    made.load(Relaxed)
}
