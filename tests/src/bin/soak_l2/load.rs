//! Hits and misses at a steady pace. Threads and blocking sockets, so that neither a
//! timer's grain nor other tasks stand in the measured times.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// The page that is in L1.
pub const WARM: &str = "/warm";

/// Of hits, and as many of misses.
const THREADS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running load.
pub struct SoakLoad {
    stop: Arc<AtomicBool>,
    hits: Vec<JoinHandle<RequestTimes>>,
    misses: Vec<JoinHandle<RequestTimes>>,
}

/// What requests took.
#[derive(Default)]
pub struct RequestTimes {
    times: Vec<Duration>,
    pub failures: u64,
}

impl SoakLoad {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |misses: bool| {
            let threads = (0..THREADS).map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || ask_until(&stop, address, misses))
            });
            threads.collect()
        };
        let (hits, misses) = (run(false), run(true));
        Self { stop, hits, misses }
    }

    /// Ends it; what it took goes to what hits and misses took before.
    pub fn stop_into(self, [hits, misses]: &mut [RequestTimes; 2]) {
        self.stop.store(true, Ordering::Relaxed);
        for (threads, sum) in [(self.hits, hits), (self.misses, misses)] {
            for thread in threads {
                let one = thread.join().expect("a client does not panic");
                sum.times.extend(one.times);
                sum.failures += one.failures;
            }
            sum.times.sort_unstable();
        }
    }
}

impl RequestTimes {
    /// How many, p50 and p99 in ms, as cells of a table.
    pub fn text(&self) -> String {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        format!("{} | {p50:.2} | {p99:.2}", self.times.len())
    }

    fn quantile(&self, share: f64) -> f64 {
        let at = (self.times.len() as f64 * share) as usize;
        let time = self.times.get(at.min(self.times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    }
}

fn ask_until(stop: &AtomicBool, address: SocketAddr, misses: bool) -> RequestTimes {
    let mut latencies = RequestTimes::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        let path = if misses { new_page() } else { WARM.to_owned() };
        let start = Instant::now();
        match ask(&mut connection, address, &path) {
            Ok(()) => latencies.times.push(start.elapsed()),
            Err(error) => {
                eprintln!("{path} failed: {error:#}");
                latencies.failures += 1;
                connection = None;
            }
        }
    }
    latencies
}

fn new_page() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("/new/{:08}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One request; its body has to be its path.
fn ask(connection: &mut Option<TcpStream>, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(open(address)?),
    };
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").context("writing")?;
    let mut seen = Vec::with_capacity(1_024);
    let mut piece = [0; 1_024];
    let end = format!("\r\n\r\n{path}");
    while !seen.ends_with(end.as_bytes()) {
        let n = stream.read(&mut piece).context("reading")?;
        ensure!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
    let head = String::from_utf8_lossy(&seen);
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered {head}");
    let hit = head.contains("lamina; hit");
    ensure!(
        hit == (path == WARM),
        "the wrong one of hit and miss: {head}"
    );
    Ok(())
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
