//! Certificates that are obtained from certificate authorities, and renewed (RFC 8555).
//!
//! [`AcmeManager`] knows every certificate that listeners want, and does what is due about each:
//! nobody waits for it. Inside: `config` is the YAML; `managed` is one certificate, `schedule` says
//! when something is due, `work` does it, under a lease so that of all nodes one does; `order` is
//! one order with an `issuer`, over `transport`; `challenges` are the answers by which the issuer
//! sees that names are ours (`dns_challenge` with `dns` for records of the DNS); `on_demand` is for
//! names that nobody lists, and `ask` asks whether they are ours; `storage` keeps all of it, as `records`; `keys` and `chain` make and
//! read what is in certificates, and `revocation` has them revoked; `failure` says what went wrong, `metrics` counts.
//!
//! Invariants: a start never waits for an issuer, and a certificate that is there is used until
//! there is a better one. What a restart must know (orders, pauses, windows) is stored before it is
//! acted upon.

mod ask;
mod chain;
mod challenges;
pub mod config;
mod dns;
mod dns_challenge;
mod failure;
mod issuer;
mod keys;
mod managed;
mod metrics;
mod on_demand;
mod order;
mod records;
mod revocation;
mod schedule;
mod status;
pub mod storage;
mod transport;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::ask::AskSetupError;
use self::challenges::AcmeChallenges;
use self::config::{AcmeConfig, AcmeStorageConfig};
use self::issuer::AcmeIssuer;
use self::keys::KeyAlgorithm;
use self::managed::{CertificateOccasion, ManagedCertificate, WorkState};
use self::metrics::AcmeMetrics;
use self::on_demand::OnDemandIssuance;
use self::records::{StoredCertificate, StoredRenewal};
use self::schedule::AcmeStep;
use self::storage::folder::AcmeFolder;
use self::storage::redis::AcmeRedis;
use self::storage::{AcmeRecordKey, AcmeRecordKind, AcmeStorage, AcmeStorageError};
use crate::http::config::ListenerConfig;
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::{ObtainedCertificates, ObtainedSourceId, names_of};
use crate::telemetry::metrics::Registry;

pub use self::status::{MissingCertificates, ObtainedStatus};
pub use self::storage::redis::AcmeRedisSettings;

/// Obtains and renews certificates.
pub struct AcmeManager {
    config: AcmeConfig,
    storage: Arc<dyn AcmeStorage>,
    issuers: BTreeMap<String, KnownIssuer>,
    certificates: ArcSwap<Vec<Arc<ManagedCertificate>>>,
    challenges: Arc<AcmeChallenges>,
    tls: Arc<TlsListeners>,
    metrics: AcmeMetrics,
    /// One permit for each order that may be under way.
    orders: Arc<Semaphore>,
}

/// An issuer, and its staging environment if it has one.
struct KnownIssuer {
    real: Arc<AcmeIssuer>,
    staging: Option<Arc<AcmeIssuer>>,
}

impl KnownIssuer {
    /// When it wants to be asked again, if a refusal since the last call said so.
    fn take_retry_after(&self) -> Option<SystemTime> {
        let of_staging = self.staging.as_ref();
        let of_staging = of_staging.and_then(|staging| staging.transport.take_retry_after());
        self.real.transport.take_retry_after().max(of_staging)
    }
}

/// Why certificates can't be obtained at all.
#[derive(Debug, thiserror::Error)]
pub enum AcmeOpenError {
    #[error(transparent)]
    Storage(#[from] AcmeStorageError),
    #[error("issuers.{issuer}.ca_file: {source}")]
    Issuer {
        issuer: String,
        source: lamina_base::tls::TrustedAuthoritiesError,
    },
    #[error("storage: redis: no Redis or no seal key is given")]
    NoRedis,
    #[error("storage: {0}")]
    Redis(#[from] lamina_base::redis::RedisTargetError),
    #[error("on_demand.ask: {0}")]
    Ask(#[from] AskSetupError),
    #[error("metrics")]
    Metrics(#[from] prometheus::Error),
}

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// How long a start waits for the storage; certificates that come later are used from then on.
const PATIENCE: Duration = Duration::from_secs(2);

/// How soon a storage that does not answer is asked again while the process starts.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl AcmeManager {
    /// Reads the certificates that are stored, and gives them to the listeners.
    ///
    /// # Errors
    /// If the storage can't be opened, or an issuer's authorities can't be read.
    pub async fn open(
        config: &AcmeConfig,
        listeners: &[ListenerConfig],
        redis: Option<AcmeRedisSettings>,
        tls: &Arc<TlsListeners>,
        registry: &Registry,
    ) -> Result<Arc<Self>, AcmeOpenError> {
        let storage: Arc<dyn AcmeStorage> = match &config.storage {
            AcmeStorageConfig::Folder(folder) => Arc::new(AcmeFolder::open(folder)?),
            AcmeStorageConfig::Redis => {
                let settings = redis.zip(config.seal_key.as_deref());
                let (settings, secret) = settings.ok_or(AcmeOpenError::NoRedis)?;
                Arc::new(AcmeRedis::open(settings, secret)?)
            }
        };
        let manager = Arc::new(Self {
            issuers: issuers(config)?,
            certificates: ArcSwap::from_pointee(wanted(config, listeners)),
            challenges: Arc::new(AcmeChallenges::new(Arc::clone(&storage))),
            tls: Arc::clone(tls),
            metrics: AcmeMetrics::register(registry)?,
            orders: Arc::new(Semaphore::new(config.max_orders)),
            config: config.clone(),
            storage,
        });
        let answers = Arc::clone(&manager.challenges);
        tls.answer_challenges_by(answers);
        if let Some(on_demand) = &config.on_demand {
            let issuance = OnDemandIssuance::new(on_demand, listeners, &manager, registry)?;
            tls.obtain_on_demand_by(Arc::new(issuance));
        }
        if timeout(PATIENCE, manager.begin()).await.is_err() {
            tracing::warn!("the storage of certificates does not answer; starting without it");
        }
        Ok(manager)
    }

    /// Reads what is stored as soon as the storage answers.
    async fn begin(&self) {
        while self.storage.version().await.is_err() {
            sleep(LOOK_AGAIN).await;
        }
        self.look_at_storage().await;
    }

    /// Looks after the certificates that these listeners want, in place of those that were wanted
    /// before. Names on demand stay.
    pub async fn want(&self, listeners: &[ListenerConfig]) {
        self.certificates.rcu(|present| {
            let known = |id: &str| present.iter().find(|certificate| certificate.id == id);
            let wanted = wanted(&self.config, listeners).into_iter();
            let wanted = wanted.map(|new| known(&new.id).map_or(new, Arc::clone));
            let on_demand = present
                .iter()
                .filter(|certificate| certificate.occasion == CertificateOccasion::OnDemand);
            let all: Vec<_> = wanted.chain(on_demand.map(Arc::clone)).collect();
            all
        });
        self.look_at_storage().await;
        self.provide();
    }

    /// Leaves orders that are under way to another process, which goes on with them. The answers that
    /// their issuers look for stay.
    pub fn leave_orders(&self) {
        self.challenges.leave();
    }

    /// Does what is due, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looked, mut version) = (Instant::now(), None);
        // Dropping it ends what is under way.
        let mut works = JoinSet::new();
        loop {
            ticks.tick().await;
            if looked.elapsed() >= self.config.poll_interval.0 {
                version = self.look_if_changed(version).await;
                looked = Instant::now();
            }
            while works.try_join_next().is_some() {}
            self.begin_due_work(&mut works);
        }
    }

    /// Begins what is due, as far as there is room.
    fn begin_due_work(self: &Arc<Self>, works: &mut JoinSet<()>) {
        let now = schedule::now();
        let is_busy = |one: &&Arc<ManagedCertificate>| one.state.lock().work == WorkState::UnderWay;
        let certificates = self.certificates.load_full();
        let mut busy: Vec<_> = certificates.iter().filter(is_busy).collect();
        for certificate in certificates.iter() {
            // A handshake of TLS-ALPN-01 names the host alone, so that two orders for the same
            // name would take each other's answers.
            if busy.iter().any(|other| other.overlaps(certificate))
                || !self.is_due(certificate, now)
            {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.orders).try_acquire_owned() else {
                return;
            };
            certificate.state.lock().work = WorkState::UnderWay;
            busy.push(certificate);
            let (manager, certificate) = (Arc::clone(self), Arc::clone(certificate));
            works.spawn(async move {
                manager.work(certificate).await;
                drop(permit);
            });
        }
    }

    fn is_due(&self, certificate: &ManagedCertificate, now: u64) -> bool {
        let mut state = certificate.state.lock();
        if state.work == WorkState::UnderWay {
            return false;
        }
        if state.busy_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        state.busy_until = None;
        state.forget_impossible_times(now, schedule::longest_pause(&self.config.retry));
        !matches!(state.next_step(now), AcmeStep::WaitUntil(_))
    }

    /// Reads what is stored again if another version of it is there. Returns the version.
    async fn look_if_changed(&self, before: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match self.storage.version().await {
            Ok(version) if before.as_ref() == Some(&version) => before,
            Ok(version) => {
                self.look_at_storage().await;
                Some(version)
            }
            Err(error) => {
                if before.is_some() {
                    tracing::warn!(%error, "it is not known what other nodes have obtained");
                }
                None
            }
        }
    }

    /// Reads all that is stored of the certificates, and gives them to the listeners.
    async fn look_at_storage(&self) {
        let mut has_changed = false;
        for certificate in self.certificates.load_full().iter() {
            if certificate.state.lock().work == WorkState::UnderWay {
                continue;
            }
            match self.read(certificate).await {
                Ok(changed) => has_changed |= changed,
                Err(error) => {
                    tracing::warn!(certificate = certificate.id, %error, "what is stored of a certificate can't be read");
                }
            }
        }
        if has_changed {
            self.provide();
        }
    }

    /// Reads what is stored of a certificate. Returns whether it is another one than before.
    async fn read(&self, certificate: &ManagedCertificate) -> Result<bool, AcmeStorageError> {
        let key = |kind| AcmeRecordKey::new(kind, &certificate.id);
        let storage = &*self.storage;
        let stored: Option<StoredCertificate> =
            storage::load(storage, &key(AcmeRecordKind::Certificate)).await?;
        let renewal: Option<StoredRenewal> =
            storage::load(storage, &key(AcmeRecordKind::Renewal)).await?;
        let attempts = storage::load(storage, &key(AcmeRecordKind::Attempts)).await?;
        let mut state = certificate.state.lock();
        state.renewal = renewal.or(state.renewal.take());
        state.attempts = attempts.unwrap_or_default();
        let longest = schedule::longest_pause(&self.config.retry);
        state.forget_impossible_times(schedule::now(), longest);
        let Some(stored) = stored else {
            return Ok(false);
        };
        let held = state.held.as_ref();
        if held.is_some_and(|held| held.stored.chain == stored.chain) {
            return Ok(false);
        }
        match certificate.hold(stored) {
            Ok(held) => {
                state.held = Some(Arc::new(held));
                Ok(true)
            }
            Err(error) => {
                tracing::error!(certificate = certificate.id, %error, "the stored certificate can't be used");
                Ok(false)
            }
        }
    }

    /// Gives the listeners the certificates that are there.
    fn provide(&self) {
        let mut all = ObtainedCertificates::new();
        for certificate in self.certificates.load().iter() {
            if let Some(held) = &certificate.state.lock().held {
                let of_source = all.entry(certificate.source.clone()).or_default();
                of_source.push(Arc::clone(&held.served));
            }
        }
        self.tls.provide(all);
    }
}

fn issuers(config: &AcmeConfig) -> Result<BTreeMap<String, KnownIssuer>, AcmeOpenError> {
    let known = config.issuers.iter().map(|(name, issuer)| {
        let failed = |source| AcmeOpenError::Issuer {
            issuer: name.clone(),
            source,
        };
        let real = AcmeIssuer::new(name, issuer, config).map_err(failed)?;
        let staging = AcmeIssuer::staging(name, issuer, config).map_err(failed)?;
        Ok((name.clone(), KnownIssuer { real, staging }))
    });
    known.collect()
}

/// Every certificate that the listeners want, each once.
fn wanted(config: &AcmeConfig, listeners: &[ListenerConfig]) -> Vec<Arc<ManagedCertificate>> {
    let sources = listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| &tls.certificates);
    let mut wanted = BTreeMap::new();
    for source in sources {
        let (Some(id), Some(issuers)) = (ObtainedSourceId::of(source), &source.acme) else {
            continue;
        };
        if source.is_on_demand() {
            continue;
        }
        let issuers = issuers.as_slice();
        // The first issuer says which keys there are.
        let first = issuers.first().and_then(|name| config.issuers.get(name));
        let kind = first.map_or_else(Default::default, |issuer| issuer.key);
        for algorithm in KeyAlgorithm::all_of(kind) {
            let names = names_of(source);
            let certificate = ManagedCertificate::new(id.clone(), issuers, names, *algorithm);
            wanted.insert(certificate.id.clone(), Arc::new(certificate));
        }
    }
    wanted.into_values().collect()
}
