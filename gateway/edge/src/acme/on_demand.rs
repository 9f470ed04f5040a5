//! Certificates for names that nobody lists, obtained when a client asks for one (edge.md, AC8).
//!
//! Whoever connects can name any host, so nothing is ordered unless the operator's application says
//! that the name is ours, and everything is bounded: names at once, orders within a minute, names
//! whose refusal is remembered. A handshake waits for a while; what was begun goes on without it.

mod bounds;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::bounds::{OnDemandState, is_public};
use super::ask::{AskAnswer, AskedApplication};
use super::config::AcmeOnDemandConfig;
use super::keys::KeyAlgorithm;
use super::managed::{CertificateOccasion, ManagedCertificate, WorkState};
use super::{AcmeManager, AcmeOpenError, schedule};
use crate::http::config::ListenerConfig;
use crate::http::tls::obtained::{ObtainedSourceId, OnDemandCertificates};

/// How long the refusal of a name is remembered, and how long a failure.
const REFUSED: Duration = Duration::from_secs(600);
const FAILED: Duration = Duration::from_secs(60);

/// The most certificates on demand that a node has.
const MOST_CERTIFICATES: usize = 10_000;

/// How often it is looked whether another node has obtained a certificate.
const LOOK: Duration = Duration::from_millis(500);

/// What became of a name that a client asked for, as the value of the label `outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDemandOutcome {
    /// A certificate was ordered and obtained, by this node or another one.
    Obtained,
    /// It was in the storage.
    Stored,
    /// The application has refused the name.
    Refused,
    /// The application did not answer.
    NoAnswer,
    /// The name is none of a public host.
    NotPublic,
    /// Too many names were under way, or there are too many certificates.
    Crowded,
    /// `per_minute` is reached.
    Limited,
    /// The order failed.
    Failed,
}

impl OnDemandOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Obtained => "obtained",
            Self::Stored => "stored",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
            Self::NotPublic => "not_public",
            Self::Crowded => "crowded",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }

    /// For how long nothing is done about the name.
    fn remembered(self) -> Option<Duration> {
        match self {
            Self::Refused => Some(REFUSED),
            Self::Failed | Self::NoAnswer => Some(FAILED),
            Self::Obtained | Self::Stored | Self::NotPublic | Self::Crowded | Self::Limited => None,
        }
    }
}

/// Obtains certificates on demand.
pub struct OnDemandIssuance(Arc<OnDemandShared>);

struct OnDemandShared {
    config: AcmeOnDemandConfig,
    application: AskedApplication,
    manager: Weak<AcmeManager>,
    /// The issuers of each source.
    issuers: BTreeMap<ObtainedSourceId, Vec<String>>,
    outcomes: IntCounterVec,
    state: Mutex<OnDemandState>,
    /// Where the work goes on when a handshake has ended.
    runtime: Handle,
}

impl OnDemandIssuance {
    /// Must be called where the work is to be done.
    ///
    /// # Errors
    /// If the application can't be asked.
    pub fn new(
        config: &AcmeOnDemandConfig,
        listeners: &[ListenerConfig],
        manager: &Arc<AcmeManager>,
        registry: &Registry,
    ) -> Result<Self, AcmeOpenError> {
        let outcomes = IntCounterVec::new(
            Opts::new(
                "lamina_acme_on_demand_total",
                "Names without certificate that clients asked for, by what became of it.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        let tls = listeners.iter().filter_map(|one| one.tls.as_ref());
        let sources = tls.flat_map(|tls| &tls.certificates);
        let issuers = sources
            .filter(|one| one.is_on_demand())
            .filter_map(|source| {
                let issuers = source.acme.as_ref()?.as_slice().to_vec();
                Some((ObtainedSourceId::of(source)?, issuers))
            });
        Ok(Self(Arc::new(OnDemandShared {
            config: config.clone(),
            application: AskedApplication::new(&config.ask)?,
            manager: Arc::downgrade(manager),
            issuers: issuers.collect(),
            outcomes,
            state: Mutex::default(),
            runtime: Handle::current(),
        })))
    }

    /// Begins what is to be done about a name, or joins it. None if nothing is done.
    fn join(&self, source: &ObtainedSourceId, name: &str) -> Option<watch::Receiver<()>> {
        let shared = &self.0;
        if !is_public(name) {
            shared.count(OnDemandOutcome::NotPublic);
            return None;
        }
        let mut state = shared.state.lock();
        if let Some(pending) = state.pending.get(name) {
            return Some(pending.clone());
        }
        if state.refused.has(name, Instant::now()) {
            return None;
        }
        if state.pending.len() >= shared.config.max_pending {
            shared.count(OnDemandOutcome::Crowded);
            return None;
        }
        let (done, pending) = watch::channel(());
        state.pending.insert(name.into(), pending.clone());
        drop(state);
        let (shared, source, name) = (Arc::clone(shared), source.clone(), name.to_owned());
        self.0.runtime.spawn(async move {
            let outcome = shared.obtain(&source, &name).await;
            shared.ended(&name, outcome);
            drop(done);
        });
        Some(pending)
    }
}

impl OnDemandCertificates for OnDemandIssuance {
    fn wanted<'a>(&'a self, source: &'a ObtainedSourceId, name: &'a str) -> BoxFuture<'a, ()> {
        async move {
            if let Some(mut pending) = self.join(source, name) {
                // Closed or too late: the handshake looks what there is.
                let _ = timeout(self.0.config.wait.0, pending.changed()).await;
            }
        }
        .boxed()
    }
}

impl OnDemandShared {
    fn count(&self, outcome: OnDemandOutcome) {
        self.outcomes.with_label_values(&[outcome.label()]).inc();
    }

    fn ended(&self, name: &str, outcome: OnDemandOutcome) {
        self.count(outcome);
        let mut state = self.state.lock();
        state.pending.remove(name);
        if let Some(span) = outcome.remembered() {
            state.refused.put(name, Instant::now() + span);
        }
    }

    async fn obtain(&self, source: &ObtainedSourceId, name: &str) -> OnDemandOutcome {
        let issuers = self.issuers.get(source);
        let Some((manager, issuers)) = self.manager.upgrade().zip(issuers) else {
            return OnDemandOutcome::Failed;
        };
        if manager.lists(name) {
            return OnDemandOutcome::Refused;
        }
        let algorithm = manager.algorithm_of(issuers);
        let made = ManagedCertificate::on_demand(source, issuers, name, algorithm);
        let certificate = Arc::new(made);
        // This node before its restart, or another one, may have obtained it.
        if manager.read(&certificate).await.is_ok() && certificate.is_usable() {
            return match manager.adopt(&certificate) {
                CertificateAdoption::Taken => OnDemandOutcome::Stored,
                CertificateAdoption::TooMany => OnDemandOutcome::Crowded,
            };
        }
        match self.application.ask(name).await {
            Ok(AskAnswer::Allowed) => {}
            Ok(AskAnswer::Refused(status)) => {
                tracing::debug!(name, %status, "no certificate on demand: the application refuses");
                return OnDemandOutcome::Refused;
            }
            Err(error) => {
                tracing::warn!(name, %error, "no certificate on demand: the application was asked in vain");
                return OnDemandOutcome::NoAnswer;
            }
        }
        let now = Instant::now();
        if !self.state.lock().begin_order(self.config.per_minute, now) {
            tracing::warn!(
                name,
                "no certificate on demand: on_demand.per_minute is reached"
            );
            return OnDemandOutcome::Limited;
        }
        manager.obtain_on_demand(&certificate).await
    }
}

/// Whether one more certificate was taken over.
enum CertificateAdoption {
    Taken,
    TooMany,
}

impl AcmeManager {
    /// Whether a source lists this name.
    fn lists(&self, name: &str) -> bool {
        let certificates = self.certificates.load();
        let mut listed = certificates
            .iter()
            .filter(|one| one.occasion == CertificateOccasion::Listed);
        listed.any(|one| one.names.iter().any(|listed| listed == name))
    }

    /// The kind of key of the first issuer's certificates; the quicker one, if it is both.
    fn algorithm_of(&self, issuers: &[String]) -> KeyAlgorithm {
        let first = issuers
            .first()
            .and_then(|name| self.config.issuers.get(name));
        let kind = first.map_or_else(Default::default, |issuer| issuer.key);
        let all = KeyAlgorithm::all_of(kind);
        all.first().copied().unwrap_or(KeyAlgorithm::EcdsaP256)
    }

    /// Takes a certificate among those that are served and renewed.
    fn adopt(&self, certificate: &Arc<ManagedCertificate>) -> CertificateAdoption {
        let on_demand =
            |one: &&Arc<ManagedCertificate>| one.occasion == CertificateOccasion::OnDemand;
        if self.certificates.load().iter().filter(on_demand).count() >= MOST_CERTIFICATES {
            return CertificateAdoption::TooMany;
        }
        self.certificates.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(Arc::clone(certificate));
            all
        });
        self.provide();
        CertificateAdoption::Taken
    }

    fn forget(&self, certificate: &Arc<ManagedCertificate>) {
        self.certificates.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|one| !Arc::ptr_eq(one, certificate));
            all
        });
    }

    /// Orders a certificate, or waits for the node that does.
    async fn obtain_on_demand(
        self: &Arc<Self>,
        certificate: &Arc<ManagedCertificate>,
    ) -> OnDemandOutcome {
        // Nobody else begins work about it.
        certificate.state.lock().work = WorkState::UnderWay;
        if let CertificateAdoption::TooMany = self.adopt(certificate) {
            return OnDemandOutcome::Crowded;
        }
        let limit = self.config.order_timeout.0;
        let worked = timeout(limit, self.work_on_demand(certificate)).await;
        certificate.state.lock().work = WorkState::Idle;
        match worked.is_ok() && certificate.is_usable() {
            true => OnDemandOutcome::Obtained,
            false => {
                self.forget(certificate);
                OnDemandOutcome::Failed
            }
        }
    }

    async fn work_on_demand(self: &Arc<Self>, certificate: &Arc<ManagedCertificate>) {
        let Ok(_permit) = self.orders.acquire().await else {
            return;
        };
        loop {
            Arc::clone(self).work(Arc::clone(certificate)).await;
            if certificate.begins_again() == WorkState::Idle {
                return;
            }
            // Another node has the turn.
            sleep(LOOK).await;
        }
    }
}

impl ManagedCertificate {
    /// Takes up work again, unless there is a certificate, or an attempt has failed.
    fn begins_again(&self) -> WorkState {
        let mut state = self.state.lock();
        let now = schedule::now();
        let storage_fails = |until: Instant| until > Instant::now() + LOOK * 4;
        let has_failed =
            state.attempts.not_before > now || state.busy_until.is_some_and(storage_fails);
        if !has_failed && !state.is_usable(now) {
            state.work = WorkState::UnderWay;
        }
        state.work
    }

    fn is_usable(&self) -> bool {
        self.state.lock().is_usable(schedule::now())
    }
}
