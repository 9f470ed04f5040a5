//! TLS of the listeners: certificates, policies by name, session tickets.
//!
//! Inside: `config` is the YAML; `names` compares the names of servers; `certificate` is one
//! certificate with its key, `files` finds those of a listener and notices changes, `obtained` has
//! those that come from certificate authorities, and their challenges; `policy` is what some names
//! demand, `tickets` binds sessions to it; `remarks` finds what is risky about a certificate,
//! `setup_check` and `setup_error` say what is wrong and under which key of the configuration; `quic` is TLS below HTTP/3; `fingerprint` recognises
//! clients (JA4);
//! `client_chain` tells by whom a client's certificate was verified;
//! `session` is what is known of a connection after its handshake; `listeners` knows all listeners
//! of the process, and counts.
//! Neighbours: `server::handshake` does handshakes by what stands here.
//!
//! Decision: the names of the client decide on a policy before rustls sees a configuration, so
//! that each policy has a configuration of its own with tickets of its own.

pub mod certificate;
mod certificate_table;
mod client_chain;
pub mod config;
pub mod files;
pub mod fingerprint;
pub mod listeners;
pub mod names;
pub mod obtained;
mod policy;
mod quic;
pub mod remarks;
mod session;
mod setup_check;
mod setup_error;
pub mod tickets;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::quic::Suite;
use rustls::server::ClientHello;

use self::certificate::{CertificateError, ServerCertificate};
use self::certificate_table::{ByClientHello, CertificateTable};
use self::config::{CertificateSource, EarlyDataMode, HstsConfig, ListenerTlsConfig};
use self::files::{CertificateFiles, FilesLook, PairOrigin};
use self::listeners::TlsListeners;
use self::names::{ServerNamePattern, ServerNameTable, canonical};
use self::obtained::ObtainedSourceId;
use self::policy::{CommonParameters, PolicyDemands, TlsPolicy, TlsTransports};
use self::quic::KeptSessions;
use self::setup_check::policies_for_nobody;
use self::tickets::{TicketSecrets, TlsPolicyId};
use crate::config::Protocol;

pub use policy::TlsPolicyError;
pub(crate) use quic::{QUIC_VERSION, QuicHandshake, QuicSecrets, QuicTls};
pub use session::{ClientCertificatePresented, TlsSession};
pub use setup_error::{TlsSetupError, TlsSetupFault};

/// TLS of one listener: what new connections are made by. It is replaced when files change.
pub struct TlsListener {
    config: ListenerTlsConfig,
    protocols: Vec<Protocol>,
    secrets: TicketSecrets,
    /// The sessions of QUIC if it takes early data.
    kept: Option<KeptSessions>,
    watched: Mutex<WatchedFiles>,
    /// The sources whose certificates do not come from files.
    obtained: Vec<ObtainedSourceId>,
    /// The one of them that has certificates for whatever names clients ask for.
    on_demand: Option<ObtainedSourceId>,
    current: ArcSwap<TlsTables>,
    pub(crate) listeners: Arc<TlsListeners>,
    /// The value of `Strict-Transport-Security`, if it is sent.
    pub(crate) hsts: Option<HeaderValue>,
}

/// The files of a listener, and what became of their last change.
struct WatchedFiles {
    certificates: CertificateFiles,
    /// Whether certificates wait to be used because a policy could not be made.
    waiting: bool,
    /// The policies, as [`TlsTables::policies_now`] tells them, that could not be made.
    refused: Option<Option<Vec<TlsPolicyId>>>,
}

/// Certificates and policies by name, as they are at one time.
pub(crate) struct TlsTables {
    certificates: Arc<CertificateTable>,
    /// That of the listener, then those of names.
    policies: Vec<Arc<TlsPolicy>>,
    /// Which of `policies` a name has.
    policy_of: ServerNameTable<usize>,
    /// What protects the first packets of QUIC. None if the listener does not speak HTTP/3.
    quic: Option<Suite>,
}

/// What is used for a client.
#[derive(Clone)]
pub(crate) struct ServerChoice {
    pub(crate) certificate: Arc<ServerCertificate>,
    pub(crate) policy: Arc<TlsPolicy>,
}

impl ServerChoice {
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.policy.config)
    }
}

impl TlsListener {
    /// Reads all files that the configuration of the listener at this address names.
    ///
    /// # Errors
    /// If one of them can't be used.
    pub fn open(
        address: SocketAddr,
        config: &ListenerTlsConfig,
        protocols: &[Protocol],
        hsts: Option<&HstsConfig>,
        listeners: &Arc<TlsListeners>,
    ) -> Result<Self, TlsSetupError> {
        let mut files = CertificateFiles::new(&config.certificates);
        let FilesLook { errors, .. } = files.look();
        for fault in errors {
            match fault.origin {
                PairOrigin::Files => return Err(TlsSetupError::of_source(config, fault)),
                PairOrigin::Folder => {
                    listeners.reload_failures.inc();
                    tracing::error!(error = %fault.error, "TLS certificate not taken");
                }
            }
        }
        let own = || listeners.secret().of_listener(address);
        let secrets = policy::secrets(&config.tickets.keys, own);
        let secrets = secrets.map_err(|error| TlsSetupError::of_policy(None, error))?;
        let secrets = match config.tickets.shared {
            true => secrets.beside(&listeners.shared_tickets),
            false => secrets,
        };
        let sources = config.certificates.iter();
        let obtained: Vec<_> = sources.filter_map(ObtainedSourceId::of).collect();
        let certificates = [files.good(), listeners.obtained(&obtained)].concat();
        let comes_later =
            |source: &CertificateSource| source.acme.is_some() || source.is_unissued();
        if certificates.is_empty() && !config.certificates.iter().any(comes_later) {
            return Err(TlsSetupError::at(
                "certificates",
                TlsSetupFault::NoCertificates,
            ));
        }
        policies_for_nobody(config, &certificates)?;
        let kept = (config.early_data == EarlyDataMode::Safe).then(KeptSessions::new);
        let tables = TlsTables::new(config, protocols, &secrets, kept.as_ref(), certificates)?;
        let mut sources = config.certificates.iter();
        let on_demand = sources.find(|source| source.is_on_demand());
        Ok(Self {
            on_demand: on_demand.and_then(ObtainedSourceId::of),
            obtained,
            config: config.clone(),
            protocols: protocols.to_vec(),
            secrets,
            kept,
            watched: Mutex::new(WatchedFiles {
                certificates: files,
                waiting: false,
                refused: None,
            }),
            current: ArcSwap::from_pointee(tables),
            listeners: Arc::clone(listeners),
            hsts: hsts.map(HstsConfig::value),
        })
    }

    /// Looks at the files again. New connections are made by what is good in them; what is not is
    /// reported once and changes nothing.
    pub fn look_at_files(&self) {
        let mut watched = self.watched.lock();
        let FilesLook { changed, errors } = watched.certificates.look();
        for fault in errors {
            self.listeners.reload_failures.inc();
            tracing::error!(error = %fault.error, "TLS certificate not taken; the one before stays in use");
        }
        let current = self.current.load();
        let policies = TlsTables::policies_now(&self.config);
        watched.waiting |= changed;
        let differ = policies.as_ref().is_some_and(|now| !current.has(now));
        if !watched.waiting && !differ {
            return;
        }
        if !changed && watched.refused.as_ref() == Some(&policies) {
            return;
        }
        self.renew_tables(&mut watched, policies);
    }

    /// Takes over the certificates that were obtained for it.
    pub(crate) fn take_obtained(&self) {
        if !self.obtained.is_empty() {
            let policies = TlsTables::policies_now(&self.config);
            self.renew_tables(&mut self.watched.lock(), policies);
        }
    }

    /// Makes the tables anew. Whoever calls it holds the lock of the files, so that no older tables
    /// follow newer ones.
    fn renew_tables(&self, watched: &mut WatchedFiles, policies: Option<Vec<TlsPolicyId>>) {
        let obtained = self.listeners.obtained(&self.obtained);
        let certificates = [watched.certificates.good(), obtained].concat();
        let tables = TlsTables::new(
            &self.config,
            &self.protocols,
            &self.secrets,
            self.kept.as_ref(),
            certificates,
        );
        match tables {
            Ok(tables) => {
                let certificates = tables.certificates.all.len();
                (watched.waiting, watched.refused) = (false, None);
                self.current.store(Arc::new(tables));
                tracing::info!(certificates, "TLS certificates reloaded");
            }
            Err(error) => {
                watched.refused = Some(policies);
                self.listeners.reload_failures.inc();
                tracing::error!(%error, "TLS settings not taken; those before stay in use");
            }
        }
    }

    /// Looks at the files every `reload_interval`, on a thread of its own, until the listener is
    /// gone.
    pub(crate) fn watch_files(self: &Arc<Self>) {
        let interval = self.config.reload_interval.0;
        if interval.is_zero() {
            return;
        }
        let listener = Arc::downgrade(self);
        let watch = thread::Builder::new().name("lamina-tls-files".to_owned());
        if let Err(error) = watch.spawn(move || watch_until_gone(&listener, interval)) {
            tracing::error!(%error, "files of certificates are not watched: no thread");
        }
    }

    /// What is used for a client with this ClientHello. None if it is refused.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> Option<ServerChoice> {
        let tables = self.current.load();
        let name = hello.server_name().and_then(canonical);
        let certificate = match self.config.strict_sni {
            true => tables.certificates.by_name(name.as_deref(), hello)?,
            false => tables.certificates.choose(name.as_deref(), hello)?,
        };
        Some(ServerChoice {
            certificate: Arc::clone(certificate),
            policy: Arc::clone(tables.policy(name.as_deref())),
        })
    }

    /// Waits for a certificate for the name that a client asks for, if there is none and this
    /// listener obtains certificates on demand.
    pub(crate) async fn await_certificate(&self, hello: &ClientHello<'_>) {
        let source = self.on_demand.as_ref().zip(self.listeners.on_demand());
        let name = hello.server_name().and_then(canonical);
        let Some(((source, on_demand), name)) = source.zip(name) else {
            return;
        };
        if !self.has_certificate_for(&name) {
            on_demand.wanted(source, &name).await;
        }
    }

    /// The policy for a host.
    pub(crate) fn policy_of(&self, host: &str) -> Arc<TlsPolicy> {
        Arc::clone(self.current.load().policy(canonical(host).as_deref()))
    }

    /// Whether there is a certificate for this host.
    pub(crate) fn has_certificate_for(&self, host: &str) -> bool {
        let name = canonical(host);
        let tables = self.current.load();
        name.is_some_and(|name| tables.certificates.by_name.get(&name).is_some())
    }

    /// The secrets of QUIC.
    pub(crate) fn quic_secrets(&self) -> QuicSecrets {
        QuicSecrets::new(&self.secrets)
    }

    /// The certificates that are in use.
    pub fn certificates(&self) -> Vec<Arc<ServerCertificate>> {
        self.current.load().certificates.all.clone()
    }

    /// What is wrong with files of certificates that are not used.
    pub fn unusable(&self) -> Vec<CertificateError> {
        self.watched.lock().certificates.unusable()
    }

    /// Whether requests over QUIC may come before the handshake is complete.
    pub(crate) fn early_data(&self) -> EarlyDataMode {
        self.config.early_data
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.config.handshake_timeout.0
    }

    pub(crate) fn max_handshakes(&self) -> usize {
        self.config.max_handshakes.max(1)
    }
}

fn watch_until_gone(listener: &Weak<TlsListener>, interval: Duration) {
    loop {
        thread::sleep(interval);
        match listener.upgrade() {
            Some(listener) => listener.look_at_files(),
            None => return,
        }
    }
}

impl TlsTables {
    fn new(
        config: &ListenerTlsConfig,
        protocols: &[Protocol],
        secrets: &TicketSecrets,
        kept: Option<&KeptSessions>,
        certificates: Vec<Arc<ServerCertificate>>,
    ) -> Result<Self, TlsSetupError> {
        let certificates = CertificateTable::new(certificates, config)?;
        let certificates = Arc::new(certificates);
        let alpn: Vec<_> = alpn(protocols).map(<[u8]>::to_vec).collect();
        let common = CommonParameters {
            listener: config,
            protocols: &alpn,
            transports: match protocols.contains(&Protocol::Http3) {
                true => TlsTransports::TcpAndQuic,
                false => TlsTransports::Tcp,
            },
            secrets,
            kept,
            certificates: Arc::new(ByClientHello(Arc::clone(&certificates))),
        };
        let own = common.policy(&PolicyDemands {
            names: &[],
            min_version: config.min_version,
            client_auth: None,
        });
        let own = own.map_err(|error| TlsSetupError::of_policy(None, error))?;
        let mut policies = vec![Arc::new(own)];
        let mut policy_of = ServerNameTable::default();
        for (n, policy) in config.policies.iter().enumerate() {
            let made = common.policy(&PolicyDemands {
                names: &policy.names,
                min_version: policy.min_version.unwrap_or(config.min_version),
                client_auth: policy.client_auth.as_ref(),
            });
            let made = made.map_err(|error| TlsSetupError::of_policy(Some(n), error))?;
            for name in policy
                .names
                .iter()
                .filter_map(|name| ServerNamePattern::parse(name))
            {
                *policy_of.entry(&name) = policies.len();
            }
            policies.push(Arc::new(made));
        }
        let quic = match protocols.contains(&Protocol::Http3) {
            true => Some(quic::initial_suite(&policies[0])?),
            false => None,
        };
        Ok(Self {
            certificates,
            policies,
            policy_of,
            quic,
        })
    }

    fn policy(&self, name: Option<&str>) -> &Arc<TlsPolicy> {
        let at = name.and_then(|name| self.policy_of.get(name));
        &self.policies[at.copied().unwrap_or(0)]
    }

    /// The policies of names, as their files make them now. None if one can't be read.
    fn policies_now(config: &ListenerTlsConfig) -> Option<Vec<TlsPolicyId>> {
        let policies = config.policies.iter().map(|policy| {
            let demands = PolicyDemands {
                names: &policy.names,
                min_version: policy.min_version.unwrap_or(config.min_version),
                client_auth: policy.client_auth.as_ref(),
            };
            policy::identity(&demands).ok()
        });
        policies.collect()
    }

    /// Whether these are its policies of names.
    fn has(&self, policies: &[TlsPolicyId]) -> bool {
        let made = self.policies.iter().skip(1).map(|policy| policy.id);
        made.eq(policies.iter().copied())
    }
}

/// The names of protocols for ALPN (RFC 7301), in our order.
fn alpn(protocols: &[Protocol]) -> impl Iterator<Item = &'static [u8]> {
    let known: [(Protocol, &[u8]); 2] = [(Protocol::Http2, b"h2"), (Protocol::Http1, b"http/1.1")];
    let spoken = known.into_iter().filter(|(one, _)| protocols.contains(one));
    spoken.map(|(_, name)| name)
}

impl HstsConfig {
    /// The value of the field (RFC 6797 §6.1).
    fn value(&self) -> HeaderValue {
        let mut text = format!("max-age={}", self.max_age.0.as_secs());
        if self.include_subdomains {
            text.push_str("; includeSubDomains");
        }
        if self.preload {
            text.push_str("; preload");
        }
        // Digits and letters can always be a value.
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("max-age=0"))
    }
}
