//! All TLS listeners of the process: what is counted of them, and which hosts they have
//! certificates for.

use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::TlsListener;
use super::certificate::ServerCertificate;
use super::obtained::{
    ChallengeAnswers, ObtainedCertificates, ObtainedSourceId, OnDemandCertificates,
};
use super::tickets::{ProcessSecret, SharedTicketSecrets};

/// How a handshake ended, as the value of the label `outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeOutcome {
    /// A new session.
    Full,
    /// An earlier session was resumed.
    Resumed,
    /// The client asked for no name, or for one without certificate.
    UnknownName,
    /// The client spoke no TLS.
    ClearText,
    /// A certificate authority got the answer to a challenge.
    Challenge,
    /// The time was over.
    Timeout,
    /// It was the oldest one when there were too many.
    Crowded,
    /// The client left, or client and server had nothing in common.
    Failed,
}

impl HandshakeOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::UnknownName => "unknown_name",
            Self::ClearText => "clear_text",
            Self::Challenge => "challenge",
            Self::Timeout => "timeout",
            Self::Crowded => "crowded",
            Self::Failed => "failed",
        }
    }
}

/// The TLS listeners of the process, with their metrics.
pub struct TlsListeners {
    handshakes: IntCounterVec,
    pub(super) reload_failures: IntCounter,
    not_after: IntGaugeVec,
    listeners: Mutex<Vec<std::sync::Weak<TlsListener>>>,
    /// Those that come from certificate authorities.
    obtained: ArcSwap<ObtainedCertificates>,
    challenges: OnceLock<Arc<dyn ChallengeAnswers>>,
    on_demand: OnceLock<Arc<dyn OnDemandCertificates>>,
    /// What the secrets of listeners without their own are derived from.
    secret: OnceLock<ProcessSecret>,
    /// Secrets of tickets that nodes have agreed upon, for listeners that share theirs.
    pub shared_tickets: Arc<SharedTicketSecrets>,
}

/// The certificates that have a series of their own: those that expire first.
const MOST_CERTIFICATES: usize = 100;

impl Default for TlsListeners {
    /// Families that are in no registry yet.
    fn default() -> Self {
        let valid = "names of metrics and labels are valid";
        Self {
            handshakes: IntCounterVec::new(
                Opts::new(
                    "lamina_tls_handshakes_total",
                    "TLS handshakes with clients, by how they ended.",
                ),
                &["outcome"],
            )
            .expect(valid),
            reload_failures: IntCounter::new(
                "lamina_tls_reload_failures_total",
                "Certificates and TLS settings that were changed and not taken, because they can't be used.",
            )
            .expect(valid),
            not_after: IntGaugeVec::new(
                Opts::new(
                    "lamina_tls_certificate_not_after_seconds",
                    "When a certificate of a listener expires, in seconds since 1970; those that expire first.",
                ),
                &["certificate"],
            )
            .expect(valid),
            listeners: Mutex::default(),
            obtained: ArcSwap::default(),
            challenges: OnceLock::new(),
            on_demand: OnceLock::new(),
            secret: OnceLock::new(),
            shared_tickets: Arc::default(),
        }
    }
}

impl TlsListeners {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let metrics = Self::default();
        registry.register(Box::new(metrics.handshakes.clone()))?;
        registry.register(Box::new(metrics.reload_failures.clone()))?;
        registry.register(Box::new(metrics.not_after.clone()))?;
        Ok(Arc::new(metrics))
    }

    /// Takes over the secret of the process before. It counts if no listener was opened yet.
    pub fn inherit_secret(&self, secret: ProcessSecret) {
        let _ = self.secret.set(secret);
    }

    /// The secret of the process.
    pub fn secret(&self) -> &ProcessSecret {
        self.secret.get_or_init(ProcessSecret::random)
    }

    /// Adds a listener, which counts as long as it is there.
    pub(crate) fn add(&self, listener: &Arc<TlsListener>) {
        self.listeners.lock().push(Arc::downgrade(listener));
    }

    /// Has all listeners look at their files now, whatever their `reload_interval` is.
    pub fn look_at_files(&self) {
        let open: Vec<_> = self.listeners.lock().clone();
        let open = open.iter().filter_map(std::sync::Weak::upgrade);
        open.for_each(|listener| listener.look_at_files());
    }

    /// Gives the listeners the certificates that were obtained, in place of all that were given
    /// before. New connections are made by them.
    pub fn provide(&self, certificates: ObtainedCertificates) {
        self.obtained.store(Arc::new(certificates));
        let open: Vec<_> = self.listeners.lock().clone();
        let open = open.iter().filter_map(std::sync::Weak::upgrade);
        open.for_each(|listener| listener.take_obtained());
    }

    /// The certificates that were obtained for these sources.
    pub(super) fn obtained(&self, sources: &[ObtainedSourceId]) -> Vec<Arc<ServerCertificate>> {
        let obtained = self.obtained.load();
        let found = sources.iter().filter_map(|source| obtained.get(source));
        found.flatten().cloned().collect()
    }

    /// Says who knows the answers to challenges. Only the first one counts.
    pub fn answer_challenges_by(&self, answers: Arc<dyn ChallengeAnswers>) {
        self.challenges.get_or_init(|| answers);
    }

    /// Says who obtains certificates for names that nobody lists. Only the first one counts.
    pub fn obtain_on_demand_by(&self, on_demand: Arc<dyn OnDemandCertificates>) {
        self.on_demand.get_or_init(|| on_demand);
    }

    /// Who obtains certificates for names that nobody lists. None if nobody does.
    pub(super) fn on_demand(&self) -> Option<&Arc<dyn OnDemandCertificates>> {
        self.on_demand.get()
    }

    /// Who knows the answers to challenges. None if no certificates are obtained.
    pub fn challenges(&self) -> Option<&Arc<dyn ChallengeAnswers>> {
        self.challenges.get()
    }

    /// Whether one of the listeners has a certificate for this host, a name or an address.
    pub fn have_certificate_for(&self, host: &str) -> bool {
        let open: Vec<_> = {
            let listeners = self.listeners.lock();
            let open = listeners.iter().filter_map(std::sync::Weak::upgrade);
            open.collect()
        };
        open.iter().any(|listener| listener.covers(host))
    }

    pub(crate) fn ended(&self, outcome: HandshakeOutcome) {
        self.handshakes.with_label_values(&[outcome.label()]).inc();
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        let open = listeners.iter().filter_map(std::sync::Weak::upgrade);
        let mut all: Vec<_> = open.flat_map(|listener| listener.certificates()).collect();
        all.sort_by_key(|certificate| certificate.not_after);
        self.not_after.reset();
        for certificate in all.iter().take(MOST_CERTIFICATES) {
            let file = certificate.file.display().to_string();
            let at = certificate.not_after.duration_since(UNIX_EPOCH);
            let at = at.map_or(0, |at| at.as_secs());
            let gauge = self.not_after.with_label_values(&[&file]);
            gauge.set(i64::try_from(at).unwrap_or(i64::MAX));
        }
    }
}
