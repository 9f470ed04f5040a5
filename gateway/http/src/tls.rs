//! TLS of the listeners: certificates, policies by name, session tickets.
//!
//! Inside: `config` is the YAML; `names` compares the names of servers; `certificate` is one
//! certificate with its key, `files` finds those of a listener and notices changes, `obtained` has
//! those that come from certificate authorities, and their challenges; `policy` is what some names
//! demand, `tickets` binds sessions to it; `remarks` finds what is risky about a certificate,
//! `setup_check` and `setup_error` say what is wrong and under which key of the configuration; `quic` is TLS below HTTP/3; `fingerprint` recognises
//! clients (JA4);
//! `client_chain` tells by whom a client's certificate was verified;
//! `tables` has certificates and policies by name; `session` is what is known of a connection after its handshake; `listeners` knows all listeners
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
mod tables;
pub mod tickets;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::HeaderValue;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::ClientHello;

use self::certificate::{CertificateError, ServerCertificate};
use self::config::{CertificateSource, EarlyDataMode, HstsConfig, ListenerTlsConfig};
use self::files::{CertificateFiles, FilesLook, PairOrigin};
use self::listeners::TlsListeners;
use self::names::canonical;
use self::obtained::{ObtainedSourceId, OnDemandCertificates};
use self::policy::TlsPolicy;
use self::quic::KeptSessions;
use self::setup_check::policies_for_nobody;
use self::tables::TlsTables;
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
    secrets: TicketSecrets,
    /// The last error of the files of secrets that was reported, until there is another one or none.
    unread_secrets: Option<TlsPolicyError>,
    /// Whether something waits to be used because a policy could not be made.
    waiting: bool,
    /// The policies, as [`TlsTables::policies_now`] tells them, that could not be made.
    refused: Option<Option<Vec<TlsPolicyId>>>,
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
            kept,
            watched: Mutex::new(WatchedFiles {
                certificates: files,
                secrets,
                unread_secrets: None,
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
        let changed = changed | self.look_at_secrets(&mut watched);
        let current = self.current.load();
        let policies = TlsTables::policies_now(&self.config);
        watched.waiting |= changed;
        let differ = policies.as_ref().is_none_or(|now| !current.has(now));
        if !watched.waiting && !differ {
            watched.refused = None;
            return;
        }
        if !changed && watched.refused.as_ref() == Some(&policies) {
            return;
        }
        self.renew_tables(&mut watched, policies);
    }

    /// Reads the secrets of tickets again, where files hold them. Returns whether there are others.
    fn look_at_secrets(&self, watched: &mut WatchedFiles) -> bool {
        let present = &watched.secrets;
        match policy::secrets(&self.config.tickets.keys, || present.clone()) {
            Ok(now) => {
                watched.unread_secrets = None;
                let others = present.replaced_by(now);
                let differ = others.is_some();
                watched.secrets = others.unwrap_or_else(|| present.clone());
                differ
            }
            Err(error) if watched.unread_secrets.as_ref() == Some(&error) => false,
            Err(error) => {
                self.listeners.reload_failures.inc();
                tracing::error!(%error, "secrets of tickets not taken; those before stay in use");
                watched.unread_secrets = Some(error);
                false
            }
        }
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
            &watched.secrets,
            self.kept.as_ref(),
            certificates.clone(),
        );
        match tables {
            Ok(tables) => {
                let certificates = tables.certificates.all.len();
                (watched.waiting, watched.refused) = (false, None);
                self.current.store(Arc::new(tables));
                tracing::info!(certificates, "TLS certificates reloaded");
            }
            Err(error) => {
                watched.waiting = true;
                if watched.refused.replace(policies.clone()) != Some(policies) {
                    self.listeners.reload_failures.inc();
                    tracing::error!(%error, "TLS settings not taken; those before stay in use");
                }
                // A list of revoked certificates that can't be read must let no certificate of ours end.
                let current = self.current.load();
                if let Ok(tables) = current.with_certificates(&self.config, certificates) {
                    self.current.store(Arc::new(tables));
                }
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
        if let Some((source, on_demand, name)) = self.wanted_by(hello) {
            on_demand.wanted(source, &name).await;
        }
    }

    /// The same without waiting, for handshakes that can't.
    pub(crate) fn want_certificate(&self, hello: &ClientHello<'_>) {
        if let Some((source, on_demand, name)) = self.wanted_by(hello) {
            // Its first step begins the work, which goes on without who waits.
            let _ = on_demand.wanted(source, &name).now_or_never();
        }
    }

    /// The source that obtains a certificate for the name that a client asks for, who does it, and
    /// that name. None if there is a certificate, or nobody obtains one.
    fn wanted_by(
        &self,
        hello: &ClientHello<'_>,
    ) -> Option<(&ObtainedSourceId, &Arc<dyn OnDemandCertificates>, String)> {
        let source = self.on_demand.as_ref()?;
        let on_demand = self.listeners.on_demand()?;
        let name = hello.server_name().and_then(canonical)?;
        (!self.has_certificate_for(&name)).then(|| (source, on_demand, name.into_owned()))
    }

    /// The policy for a host.
    pub(crate) fn policy_of(&self, host: &str) -> Arc<TlsPolicy> {
        Arc::clone(self.current.load().policy(canonical(host).as_deref()))
    }

    /// Whether there is a certificate for this host, which may be an address.
    pub(crate) fn covers(&self, host: &str) -> bool {
        match ServerCertificate::address_of(host) {
            Some(address) => {
                let tables = self.current.load();
                let mut all = tables.certificates.all.iter();
                all.any(|one| one.covers_address(address))
            }
            None => self.has_certificate_for(host),
        }
    }

    /// Whether there is a certificate for this name.
    pub(crate) fn has_certificate_for(&self, host: &str) -> bool {
        let name = canonical(host);
        let tables = self.current.load();
        name.is_some_and(|name| tables.certificates.by_name.get(&name).is_some())
    }

    /// The secrets of QUIC.
    pub(crate) fn quic_secrets(&self) -> QuicSecrets {
        QuicSecrets::new(&self.watched.lock().secrets)
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
