//! The plain route's steady load: a few threads, each with one kept connection and a
//! pause between requests. Threads and blocking sockets, so that neither a timer's
//! grain nor the neighbours' tasks stand in the measured times.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// The page of the plain route.
pub const PLAIN: &str = "/plain";

const THREADS: usize = 4;
const PAUSE: Duration = Duration::from_millis(2);
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running load.
pub struct PlainRouteLoad {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<RequestTimes>>,
}

/// What the requests took.
#[derive(Default)]
pub struct RequestTimes {
    /// In ascending order once the load has ended.
    pub times: Vec<Duration>,
    pub failures: u64,
}

impl PlainRouteLoad {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_until(&stop, address))
        };
        let threads = (0..THREADS).map(run).collect();
        Self { stop, threads }
    }

    pub fn stop(self) -> RequestTimes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = RequestTimes::default();
        for thread in self.threads {
            let one = thread.join().expect("a client does not panic");
            all.times.extend(one.times);
            all.failures += one.failures;
        }
        all.times.sort_unstable();
        all
    }
}

impl RequestTimes {
    /// The time that `share` of the answers did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (self.times.len() as f64 * share) as usize;
        self.times
            .get(at.min(self.times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

fn ask_until(stop: &AtomicBool, address: SocketAddr) -> RequestTimes {
    let mut latencies = RequestTimes::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        match ask(&mut connection, address) {
            Ok(()) => latencies.times.push(start.elapsed()),
            Err(error) => {
                eprintln!("the plain route failed: {error:#}");
                latencies.failures += 1;
                connection = None;
            }
        }
    }
    latencies
}

/// One request; it has to be a hit with the whole body.
fn ask(connection: &mut Option<TcpStream>, address: SocketAddr) -> anyhow::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(open(address)?),
    };
    write!(stream, "GET {PLAIN} HTTP/1.1\r\nhost: {address}\r\n\r\n").context("writing")?;
    let mut seen = Vec::with_capacity(2_048);
    let mut piece = [0; 2_048];
    while !seen.ends_with(&[b'x'; 1_024]) {
        let n = stream.read(&mut piece).context("reading")?;
        ensure!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
    let head = String::from_utf8_lossy(&seen);
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered {head}");
    ensure!(head.contains("lamina; hit"), "not a hit: {head}");
    Ok(())
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
