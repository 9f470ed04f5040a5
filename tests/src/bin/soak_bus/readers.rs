//! One reader a node: at a steady pace, a thread and a blocking connection each, so that a
//! reader's pause is a pause. Every answer is compared with what was promised before it was asked for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::random::Random;

use crate::truth::PromisedVersions;

/// Of all nodes.
pub const HOST: &str = "site.example";
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);
/// Wrong answers that are told in full.
const TOLD: u64 = 20;

/// The readers, until they are dropped.
pub struct PageReaders {
    shared: Arc<ReaderState>,
    threads: Vec<JoinHandle<()>>,
}

struct ReaderState {
    truth: Arc<PromisedVersions>,
    /// Where the nodes are; none while one is away.
    addresses: Vec<Mutex<Option<SocketAddr>>>,
    ends: AtomicBool,
    reads: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
    behind: AtomicU64,
    failed: AtomicU64,
}

/// What was read so far, or between two moments.
#[derive(Clone, Copy, Debug)]
pub struct ReadTally {
    pub at: Instant,
    pub reads: u64,
    pub hits: u64,
    /// Older than was promised.
    pub stale: u64,
    /// Older than a purge that some node had taken and that was not promised here yet.
    pub behind: u64,
    pub failed: u64,
}

impl PageReaders {
    pub fn start(truth: &Arc<PromisedVersions>, addresses: Vec<SocketAddr>) -> Self {
        let shared = Arc::new(ReaderState {
            truth: Arc::clone(truth),
            addresses: addresses.into_iter().map(|a| Mutex::new(Some(a))).collect(),
            ends: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let threads = (0..shared.addresses.len()).map(|node| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.read_until_the_end(node))
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// A node is there now, or is not.
    pub fn moved(&self, node: usize, address: Option<SocketAddr>) {
        *self.shared.addresses[node].lock().unwrap() = address;
    }

    pub fn tally(&self) -> ReadTally {
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        ReadTally {
            at: Instant::now(),
            reads: get(&self.shared.reads),
            hits: get(&self.shared.hits),
            stale: get(&self.shared.stale),
            behind: get(&self.shared.behind),
            failed: get(&self.shared.failed),
        }
    }
}

impl Drop for PageReaders {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl ReadTally {
    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            at: self.at,
            reads: self.reads - before.reads,
            hits: self.hits - before.hits,
            stale: self.stale - before.stale,
            behind: self.behind - before.behind,
            failed: self.failed - before.failed,
        }
    }

    /// Hits of all reads, in percent.
    pub fn hit_ratio(self) -> f64 {
        100.0 * self.hits as f64 / self.reads.max(1) as f64
    }
}

impl ReaderState {
    fn read_until_the_end(&self, node: usize) {
        let mut random = Random::new(node as u64);
        let mut connection = None;
        while !self.ends.load(Ordering::SeqCst) {
            std::thread::sleep(PAUSE);
            let Some(address) = *self.addresses[node].lock().unwrap() else {
                connection = None;
                continue;
            };
            let page = random.below(self.truth.size() as u64) as usize;
            let answer = self.read(&mut connection, address, node, page);
            if let Err(error) = answer {
                connection = None;
                // One that was taken away meanwhile is not there to answer.
                if *self.addresses[node].lock().unwrap() == Some(address) {
                    eprintln!("{}: node {node}: {error:#}", self.truth.path(page));
                    self.failed.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn read(
        &self,
        connection: &mut Option<TcpStream>,
        address: SocketAddr,
        node: usize,
        page: usize,
    ) -> anyhow::Result<()> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(open(address)?),
        };
        let due = self.truth.due(node, page);
        let head_and_body = ask(stream, self.truth.path(page))?;
        let (head, body) = head_and_body.split_once("\r\n\r\n").context("a head")?;
        let version: u64 = body.parse().context("the page's version")?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.hits
            .fetch_add(u64::from(head.contains("lamina; hit")), Ordering::SeqCst);
        let refreshes = head.contains("detail=revalidating");
        if version < due.hard || version < due.any && !refreshes {
            if self.stale.fetch_add(1, Ordering::SeqCst) < TOLD {
                let path = self.truth.path(page);
                eprintln!("STALE: {path} on node {node} is {version}, {due:?}: {head}");
            }
        } else if version < due.told && !refreshes {
            self.behind.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request; its head and its body, which has a length.
fn ask(stream: &mut TcpStream, path: &str) -> anyhow::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).context("writing")?;
    let mut seen = Vec::with_capacity(1_024);
    let mut piece = [0; 1_024];
    loop {
        let n = stream.read(&mut piece).context("reading")?;
        ensure!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
        let text = std::str::from_utf8(&seen)?;
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= length(head)?
        {
            ensure!(head.starts_with("HTTP/1.1 200 "), "answered {text}");
            return Ok(text.to_owned());
        }
    }
}

fn length(head: &str) -> anyhow::Result<usize> {
    let mut lines = head.lines();
    let line = lines.find_map(|line| line.strip_prefix("content-length: "));
    Ok(line
        .with_context(|| format!("a length in {head}"))?
        .parse()?)
}
