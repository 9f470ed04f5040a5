//! Round trips to the second tier. Its store is opened as a gateway opens it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::advice::{self, ConfigKeyPlaces, key_of_store};
use super::{AGAIN, FindingLine, ReportSection};
use lamina_base::description::FailureSubject;
use lamina_cache::config::L2Config;
use lamina_cache::l2::EVICTS;
use lamina_cache::l2::description::{
    FindingGravity, StoreDescription, StoreFinding, StoreOpenError,
};
use lamina_cache::l2::store::{
    Lease, LeaseAcquisition, LogNumber, LogPlace, LoggedPurge, Store, StoreError, StoreKey,
    StorePut,
};
use lamina_edge::app::{GatewayStartError, open_store};
use lamina_edge::config::GatewayConfig;

/// What is said of a file that a process has open.
const IN_USE: &str = "not tried, because a process uses this file, most likely the gateway with this \
                      configuration: `lamina nodes` says how its second tier is";
/// How often each round trip is made.
const ROUNDS: usize = 20;
/// How long one round trip may take here.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for the first answer, since a store connects in the background.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn examine(
    config: &GatewayConfig,
    places: &ConfigKeyPlaces<'_>,
) -> Result<ReportSection, GatewayStartError> {
    let l2 = &config.cache.l2;
    let name = "second tier";
    let Some(description) = l2.store() else {
        return Ok(ReportSection {
            name,
            what: "none".to_owned(),
            lines: Vec::new(),
        });
    };
    let lines = match open_store(config) {
        Ok(Some(store)) => trips(&store, description, l2, places).await,
        Ok(None) => Vec::new(),
        Err(error) if error.is_configuration() => return Err(error),
        Err(GatewayStartError::Store(StoreOpenError::InUse(_))) => {
            vec![FindingLine::warned("open", IN_USE.to_owned())]
        }
        // The checks of the bus are useful even then.
        Err(error) => {
            let at = places.at(&key_of_store(description, FailureSubject::Address));
            vec![FindingLine::failed("open", format!("{error} ({at})"))]
        }
    };
    Ok(ReportSection {
        name,
        what: description.location(),
        lines,
    })
}

async fn trips(
    store: &Arc<dyn Store>,
    description: &dyn StoreDescription,
    l2: &L2Config,
    places: &ConfigKeyPlaces<'_>,
) -> Vec<FindingLine> {
    let (read, write) = (l2.read_timeout.0, l2.write_timeout.0);
    let began = Instant::now();
    let name = format!("lamina doctor {:?} {}", began, std::process::id());
    let key = &StoreKey::of(name.as_bytes());
    if let Err(error) = connected(store, key).await {
        let why = advice::of_store(description, &error.to_string(), places);
        let failed = FindingLine::failed("connect", why);
        return [failed]
            .into_iter()
            .chain(rights(store, description).await)
            .collect();
    }
    let (append, place) = append(store, write).await;
    let put = || StorePut {
        key,
        record: Bytes::from_static(&[0; 1_024]),
        life: Duration::from_secs(60),
        born: place,
        lease: None,
    };
    [
        FindingLine::took("connect", vec![began.elapsed()], CONNECT),
        trip("put 1 KiB", write, async || {
            store.put(put()).await.map(drop)
        })
        .await,
        trip("get 1 KiB", read, async || {
            store.get(key, 1 << 20).await.map(drop)
        })
        .await,
        lease(store, key, l2).await,
        trip("delete", write, async || store.delete(key, place).await).await,
        append,
        trip("read purge log", write, async || {
            store.read_log(place.order.number()).await.map(drop)
        })
        .await,
    ]
    .into_iter()
    .chain(rights(store, description).await)
    .chain(eviction(store).await)
    .chain(crash(store, description).await)
    .collect()
}

/// What the store's user may not do. None: nothing that we need, or it can't be found out.
async fn rights(store: &Arc<dyn Store>, description: &dyn StoreDescription) -> Option<FindingLine> {
    let lacks = tokio::time::timeout(PATIENCE, store.lacks()).await;
    description.rights_finding(&lacks.ok()?.ok()?).map(line_of)
}

/// What a crash of the store's server may undo. Empty for a store without a server.
async fn crash(store: &Arc<dyn Store>, description: &dyn StoreDescription) -> Vec<FindingLine> {
    let said = tokio::time::timeout(PATIENCE, store.durability()).await;
    let said = said.unwrap_or(Err(StoreError::Timeout)).transpose();
    let findings = said.map_or(Vec::new(), |said| description.crash_findings(said));
    findings.into_iter().map(line_of).collect()
}

fn line_of(found: StoreFinding) -> FindingLine {
    match found.gravity {
        FindingGravity::Sound => FindingLine::fine(found.what, found.says),
        FindingGravity::Risky => FindingLine::warned(found.what, found.says),
        FindingGravity::Broken => FindingLine::failed(found.what, found.says),
    }
}

/// A failure if the store may evict its purge log.
async fn eviction(store: &Arc<dyn Store>) -> Option<FindingLine> {
    let policy = tokio::time::timeout(PATIENCE, store.evicting()).await;
    let policy = policy.ok()?.ok()??;
    let why = format!("maxmemory-policy is {policy}: {EVICTS}");
    Some(FindingLine::failed("eviction", why))
}

/// Appends a purge of a key that nobody has. Returns its place in the log as well.
async fn append(store: &Arc<dyn Store>, deadline: Duration) -> (FindingLine, LogPlace) {
    let ours = LoggedPurge {
        selector: "key:0000000000000000".to_owned(),
        soft: false,
    };
    let began = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, store.append(&ours, LogNumber::ZERO)).await;
    let name = "append purge";
    match answer.unwrap_or(Err(StoreError::Timeout)) {
        Ok(log) => (
            FindingLine::took(name, vec![began.elapsed()], deadline),
            log.end(),
        ),
        Err(error) => (
            FindingLine::failed(name, error.with_remedy()),
            LogPlace::default(),
        ),
    }
}

/// Waits for the first answer, which may take long.
pub(crate) async fn connected(store: &Arc<dyn Store>, key: &StoreKey) -> Result<(), StoreError> {
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

/// Takes a lease and gives it back. It is given back as well when no answer came: the store may
/// have granted it nevertheless, and nobody else would know whose it is.
async fn lease(store: &Arc<dyn Store>, key: &StoreKey, l2: &L2Config) -> FindingLine {
    let (lease, ttl) = (Lease::of(*key), l2.lease.ttl.0);
    let line = trip("lease", l2.read_timeout.0, async || {
        match store.acquire(&lease, ttl).await? {
            LeaseAcquisition::Owned => store.release(&lease).await.map(drop),
            LeaseAcquisition::Busy => Ok(()),
        }
    })
    .await;
    if !line.outcome.is_well() {
        // The answer changes nothing: what was not given back ends with its `ttl`.
        let _ = tokio::time::timeout(PATIENCE, store.release(&lease)).await;
    }
    line
}

async fn trip(
    name: &'static str,
    deadline: Duration,
    go: impl AsyncFn() -> Result<(), StoreError>,
) -> FindingLine {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        match timed(&go).await {
            Ok(took) => times.push(took),
            Err(error) => return FindingLine::failed(name, error.with_remedy()),
        }
    }
    FindingLine::took(name, times, deadline)
}

async fn timed(go: &impl AsyncFn() -> Result<(), StoreError>) -> Result<Duration, StoreError> {
    let began = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, go()).await;
    answer.unwrap_or(Err(StoreError::Timeout))?;
    Ok(began.elapsed())
}
