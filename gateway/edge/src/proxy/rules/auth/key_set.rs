//! The keys that tokens are verified with: read with the configuration, or fetched from a server and
//! again from time to time, behind the requests.
//!
//! What was fetched stays until there is something newer. A token that names an unknown key makes
//! the keys be fetched at once, but not more often than every few seconds: anybody can name keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::AuthMemory;
use super::config::{JwtConfig, KeyLocation};
use super::public_keys::{self, PublicKey};
use crate::http::body::{self, Body};
use crate::origin::{Origin, SendTerms};
use crate::proxy::route::RouteError;

/// The most octets of a key set.
const MOST_BYTES: usize = 256 << 10;
/// How long a fetch may take, and how long a request waits for one.
const FETCH: Duration = Duration::from_secs(5);
const REQUEST_WAITS: Duration = Duration::from_secs(3);
/// The least time between two fetches.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// A set of keys.
pub struct KeySet {
    keys: ArcSwap<Vec<PublicKey>>,
    server: Option<KeyServer>,
}

/// Where keys are fetched from.
struct KeyServer {
    /// That of the newest generation.
    origin: Mutex<Arc<Origin>>,
    path: Uri,
    refresh: Duration,
    is_begun: AtomicBool,
    wanted: Notify,
    /// The number of fetches that have ended.
    ended: watch::Sender<u64>,
    /// When the last one began.
    last: Mutex<Option<Instant>>,
}

impl KeySet {
    /// The keys that a configuration names: the same object for all who name the same.
    ///
    /// # Errors
    /// If an upstream does not exist.
    pub fn of(
        config: &JwtConfig,
        memory: &AuthMemory,
        upstream: impl Fn(&str) -> Result<Arc<Origin>, RouteError>,
    ) -> Result<Arc<Self>, RouteError> {
        let (name, path) = match config.location() {
            KeyLocation::Server { server, path } => (server, path),
            KeyLocation::Upstream { name, path } => (name, path),
            KeyLocation::File(_) | KeyLocation::Nowhere => {
                let text = config.key_file_text.as_deref().unwrap_or_default();
                let keys = public_keys::parse(text.as_bytes()).unwrap_or_default();
                let keys = ArcSwap::from_pointee(keys);
                return Ok(Arc::new(Self { keys, server: None }));
            }
        };
        let origin = upstream(name)?;
        let refresh = config.refresh.0;
        let known_as = format!("{name} {path} {refresh:?}");
        let mut sets = memory.key_sets.lock();
        sets.retain(|_, set| set.strong_count() > 0);
        if let Some(set) = sets.get(&known_as).and_then(Weak::upgrade) {
            if let Some(server) = &set.server {
                *server.origin.lock() = origin;
            }
            return Ok(set);
        }
        let set = Arc::new(Self {
            keys: ArcSwap::default(),
            server: Some(KeyServer {
                origin: Mutex::new(origin),
                path: path.parse().unwrap_or_default(),
                refresh,
                is_begun: AtomicBool::new(false),
                wanted: Notify::new(),
                ended: watch::Sender::new(0),
                last: Mutex::default(),
            }),
        });
        sets.insert(known_as, Arc::downgrade(&set));
        Ok(set)
    }

    /// The keys that are known now.
    pub fn keys(&self) -> Arc<Vec<PublicKey>> {
        self.keys.load_full()
    }

    /// Whether a fetch may bring a key that is not known.
    pub fn may_bring_more(&self) -> bool {
        let Some(server) = &self.server else {
            return false;
        };
        let last = *server.last.lock();
        self.keys.load().is_empty() || last.is_none_or(|last| last.elapsed() >= LEAST_PAUSE)
    }

    /// Has the keys fetched, and waits until they are there, or for a while.
    pub async fn fetch(&self) {
        let Some(server) = &self.server else {
            return;
        };
        let mut ended = server.ended.subscribe();
        server.wanted.notify_one();
        let _ = timeout(REQUEST_WAITS, ended.changed()).await;
    }

    /// Begins to fetch the keys, once.
    pub fn begin_work(self: &Arc<Self>) {
        let Some(server) = &self.server else {
            return;
        };
        if !server.is_begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(keep(Arc::downgrade(self)));
        }
    }
}

/// Fetches the keys again and again, as long as somebody has them.
async fn keep(set: Weak<KeySet>) {
    let mut failures = 0;
    while let Some(set) = set.upgrade() {
        let Some(server) = &set.server else {
            return;
        };
        *server.last.lock() = Some(Instant::now());
        match fetched(server).await {
            Ok(keys) => {
                failures = 0;
                set.keys.store(Arc::new(keys));
            }
            Err(reason) => {
                failures += 1;
                let (upstream, path) = (server.origin.lock().name().to_owned(), &server.path);
                tracing::warn!(upstream, %path, reason, "keys of tokens could not be fetched");
            }
        }
        server.ended.send_modify(|ended| *ended += 1);
        let pause = match failures {
            0 => server.refresh.max(LEAST_PAUSE),
            failures => LEAST_PAUSE * failures.min(12),
        };
        wait(set, pause).await;
    }
}

/// Waits until the keys are due, or wanted. The set may go meanwhile.
async fn wait(set: Arc<KeySet>, pause: Duration) {
    let holds = Arc::downgrade(&set);
    drop(set);
    let until = Instant::now() + pause;
    tokio::time::sleep(LEAST_PAUSE.min(pause)).await;
    while Instant::now() < until {
        let Some(set) = holds.upgrade() else {
            return;
        };
        let Some(server) = &set.server else {
            return;
        };
        let left = until.saturating_duration_since(Instant::now());
        if timeout(left.min(LEAST_PAUSE), server.wanted.notified())
            .await
            .is_ok()
        {
            return;
        }
    }
}

async fn fetched(server: &KeyServer) -> Result<Vec<PublicKey>, String> {
    let origin = Arc::clone(&server.origin.lock());
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = server.path.clone();
    SendTerms::of(&mut request).deadline = Some(Instant::now() + FETCH);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("lamina"));
    let exchange = async {
        let answer = origin
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the status is {}", answer.status().as_u16()));
        }
        let collected = body::collect(answer.into_body(), MOST_BYTES).await;
        collected.map_err(|error| error.to_string())
    };
    let timed = timeout(FETCH, exchange).await;
    let text = timed.map_err(|_| "it takes too long".to_owned())??;
    public_keys::parse(&text)
}
