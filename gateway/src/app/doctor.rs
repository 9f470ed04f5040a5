//! `lamina doctor`: real round trips to what the configuration names, and in plain words
//! what this configuration guarantees.
//!
//! It opens the store as a gateway does and leaves nothing there but one purge of a key
//! that nobody has.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::app::{StartError, open_store};
use crate::cache::config::L2;
use crate::cache::l2::store::{Acquired, Purge, Put, Store, StoreError, StoreKey};
use crate::config::Config;

/// What was found.
pub struct Report {
    store: String,
    trips: Vec<Trip>,
    promises: Vec<String>,
}

/// One kind of round trip, made several times.
struct Trip {
    name: &'static str,
    outcome: Result<Vec<Duration>, StoreError>,
    /// What the gateway would wait for it.
    deadline: Duration,
}

/// How often each trip is made.
const ROUNDS: usize = 20;
/// How long one may take here.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for the first answer: a store connects behind its callers.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two questions whether it has connected.
const AGAIN: Duration = Duration::from_millis(50);

impl Report {
    /// Whether everything answered in the time that a gateway would give it.
    pub fn is_well(&self) -> bool {
        self.trips.iter().all(Trip::is_well)
    }
}

impl Trip {
    fn worst(&self) -> Option<Duration> {
        self.outcome.as_ref().ok()?.iter().max().copied()
    }

    fn is_well(&self) -> bool {
        self.worst().is_some_and(|worst| worst <= self.deadline)
    }
}

/// Looks into the second tier.
///
/// # Errors
/// When its store can't be opened.
pub async fn examine(config: &Config) -> Result<Report, StartError> {
    let l2 = &config.cache.l2;
    let promises = promises(l2);
    let Some(store) = open_store(l2)? else {
        return Ok(Report {
            store: "none".to_owned(),
            trips: Vec::new(),
            promises,
        });
    };
    Ok(Report {
        store: name(l2),
        trips: trips(&store, l2).await,
        promises,
    })
}

fn name(l2: &L2) -> String {
    match (&l2.redis, &l2.disk) {
        (Some(redis), _) => redis.url.clone(),
        (None, Some(disk)) => format!("disk {}", disk.path.display()),
        (None, None) => "none".to_owned(),
    }
}

async fn trips(store: &Arc<dyn Store>, l2: &L2) -> Vec<Trip> {
    let (read, write) = (l2.read_timeout.0, l2.write_timeout.0);
    let began = Instant::now();
    let name = format!("lamina doctor {:?} {}", began, std::process::id());
    let key = &StoreKey::of(name.as_bytes());
    let first = connected(store, key).await;
    if let Err(error) = first {
        return vec![Trip {
            name: "connect",
            outcome: Err(error),
            deadline: CONNECT,
        }];
    }
    let put = || Put {
        key,
        record: Bytes::from_static(&[0; 1_024]),
        life: Duration::from_secs(60),
        born: 0,
        lease: None,
    };
    let (append, newest) = append(store, write).await;
    vec![
        Trip {
            name: "connect",
            outcome: Ok(vec![began.elapsed()]),
            deadline: CONNECT,
        },
        trip("put 1 KiB", write, async || {
            store.put(put()).await.map(drop)
        })
        .await,
        trip("get 1 KiB", read, async || {
            store.get(key, 1 << 20).await.map(drop)
        })
        .await,
        trip("lease", read, async || lease(store, key).await).await,
        trip("delete", write, async || store.delete(key, 0).await).await,
        append,
        trip("read purge log", write, async || {
            store.read_log(newest).await.map(drop)
        })
        .await,
    ]
}

/// Appends a purge of a key that nobody has; with its number.
async fn append(store: &Arc<dyn Store>, deadline: Duration) -> (Trip, u64) {
    let ours = Purge {
        selector: "key:0000000000000000".to_owned(),
        soft: false,
    };
    let began = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, store.append(&ours, 0)).await;
    let (outcome, newest) = match answer.unwrap_or(Err(StoreError::Timeout)) {
        Ok(log) => (Ok(vec![began.elapsed()]), log.newest),
        Err(error) => (Err(error), 0),
    };
    let trip = Trip {
        name: "append purge",
        outcome,
        deadline,
    };
    (trip, newest)
}

/// The first answer, which may be long in coming.
pub(super) async fn connected(store: &Arc<dyn Store>, key: &StoreKey) -> Result<(), StoreError> {
    let began = Instant::now();
    loop {
        let answer = tokio::time::timeout(PATIENCE, store.get(key, 1 << 20)).await;
        match answer.unwrap_or(Err(StoreError::Timeout)) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() >= CONNECT => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn lease(store: &Arc<dyn Store>, key: &StoreKey) -> Result<(), StoreError> {
    match store.acquire(key, PATIENCE).await? {
        Acquired::Owned(lease) => store.release(&lease).await,
        Acquired::Busy => Ok(()),
    }
}

async fn trip(
    name: &'static str,
    deadline: Duration,
    go: impl AsyncFn() -> Result<(), StoreError>,
) -> Trip {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        match timed(&go).await {
            Ok(took) => times.push(took),
            Err(error) => {
                return Trip {
                    name,
                    outcome: Err(error),
                    deadline,
                };
            }
        }
    }
    times.sort_unstable();
    Trip {
        name,
        outcome: Ok(times),
        deadline,
    }
}

async fn timed(go: &impl AsyncFn() -> Result<(), StoreError>) -> Result<Duration, StoreError> {
    let began = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, go()).await;
    answer.unwrap_or(Err(StoreError::Timeout))?;
    Ok(began.elapsed())
}

/// What this configuration guarantees.
fn promises(l2: &L2) -> Vec<String> {
    let mut all = match (&l2.redis, &l2.disk) {
        (Some(redis), _) => of_redis(l2, &redis.url),
        (None, Some(disk)) => vec![
            format!(
                "what was stored is there after a restart; after a crash, what was stored {} before it",
                disk.sync_interval
            ),
            "a purge whose receipt says `logged` is never lost, not even in a crash".to_owned(),
            "nothing is shared: each gateway needs a file of its own, and purges reach this node alone"
                .to_owned(),
        ],
        (None, None) => {
            return vec![
                "one node, one tier: a restart begins empty; a purge holds from its answer on, here".to_owned(),
            ];
        }
    };
    all.push(format!(
        "a request waits at most {} for a read; after {} failures in a row the tier is left alone for {}",
        l2.read_timeout, l2.breaker.failure_threshold, l2.breaker.cooldown
    ));
    all.push(match &l2.seal_key {
        Some(_) => "records are sealed by your key: what others write there is a miss".to_owned(),
        None => "records are sealed against damage alone: whoever may write to the store may change them; see seal_key_file".to_owned(),
    });
    all
}

fn of_redis(l2: &L2, url: &str) -> Vec<String> {
    let mut all = vec![
        "a purge holds on the node that was asked from its answer on, on each other node when it \
         has read the log: a round trip later while Redis answers"
            .to_owned(),
        "while Redis does not answer, a purge holds on its own node alone; it is told and tried \
         again until it is in the log"
            .to_owned(),
        "a load that began before a purge is shown nowhere after it, whenever it is written"
            .to_owned(),
    ];
    all.push(match l2.lease.enabled {
        true => format!(
            "one load a key among all nodes; a node whose load takes longer than {} without a sign of life loses its turn, and what it loaded is not written",
            l2.lease.ttl
        ),
        false => "each node loads for itself (lease.enabled: false)".to_owned(),
    });
    if url.contains("-sentinel://") || url.contains("-cluster://") {
        all.push(
            "a fail-over may lose the last writes of the old master; if purges were among them, \
             all that is older is hidden: a load, never an old answer"
                .to_owned(),
        );
    } else {
        all.push("one server: when it is down, each node has L1 and its own loads".to_owned());
    }
    all
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "second tier  {}", self.store)?;
        for trip in &self.trips {
            writeln!(f, "  {trip}")?;
        }
        writeln!(f, "what this configuration guarantees")?;
        self.promises
            .iter()
            .try_for_each(|promise| writeln!(f, "  - {promise}"))
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:15}", self.name)?;
        let times = match &self.outcome {
            Ok(times) => times,
            Err(error) => return write!(f, "FAILED  {error}"),
        };
        let ms = |took: Option<&Duration>| took.map_or(0.0, Duration::as_secs_f64) * 1_000.0;
        match times.len() {
            1 => write!(f, "{:8.2} ms", ms(times.first()))?,
            n => write!(
                f,
                "{:8.2} ms, worst of {n} {:.2} ms",
                ms(times.get(n / 2)),
                ms(times.last())
            )?,
        }
        match self.is_well() {
            true => Ok(()),
            false => write!(f, "  SLOW: a gateway waits {:?}", self.deadline),
        }
    }
}
