//! TLS policies: what a listener, or some of its names, demand of a session.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use lamina_base::tls::{self, TrustedAuthoritiesError, read_regular};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{KeyLogFile, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::config::{
    ClientAuthConfig, ClientAuthMode, ClientCertificateField, KeyLogSwitch, ListenerTlsConfig,
    TlsVersion,
};
use super::quic::{self, KeptSessions};
use super::tickets::{LEAST_SECRET, PolicyTicketer, TicketSecrets, TlsPolicyId};

/// What sessions of some names are made by.
#[derive(Debug)]
pub struct TlsPolicy {
    pub id: TlsPolicyId,
    /// Which field tells the certificate of the client.
    pub forward: ClientCertificateField,
    /// The authorities that certificates of clients are verified by. None if nobody is asked for one.
    pub(super) authorities: Option<Arc<RootCertStore>>,
    pub(super) config: Arc<ServerConfig>,
    /// The same for QUIC. None if the listener does not speak HTTP/3.
    pub(super) quic: Option<Arc<ServerConfig>>,
}

/// Why a listener's TLS can't be set up, certificates apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsPolicyError {
    #[error("{name:?} is not a cipher suite that is offered; expected some of: {known}")]
    Cipher {
        at: usize,
        name: String,
        known: String,
    },
    #[error("none of them is one of TLS {0}, which min_version demands; expected one more")]
    NoCipher(&'static str),
    #[error("{name:?} is not a group that is offered; expected some of: {known}")]
    Group {
        at: usize,
        name: String,
        known: String,
    },
    #[error("{0}")]
    Authorities(String),
    #[error("{}: {reason}", file.display())]
    Revocations { file: PathBuf, reason: String },
    #[error("{}: {reason}", file.display())]
    TicketKey {
        at: usize,
        file: PathBuf,
        reason: String,
    },
    #[error("{0}")]
    Unusable(String),
}

impl TlsPolicyError {
    /// The key that it is about: below `tls`, or below the policy of names that is given.
    pub(super) fn key(&self, policy: Option<usize>) -> String {
        let policy = policy.map_or_else(String::new, |policy| format!("policies[{policy}]."));
        match self {
            Self::Cipher { at, .. } => format!("ciphers[{at}]"),
            Self::NoCipher(_) => "ciphers".to_owned(),
            Self::Group { at, .. } => format!("groups[{at}]"),
            Self::Authorities(_) => format!("{policy}client_auth.ca"),
            Self::Revocations { .. } => format!("{policy}client_auth.crl"),
            Self::TicketKey { at, .. } => format!("tickets.keys[{at}]"),
            Self::Unusable(_) => policy.trim_end_matches('.').to_owned(),
        }
    }
}

impl From<TrustedAuthoritiesError> for TlsPolicyError {
    fn from(error: TrustedAuthoritiesError) -> Self {
        Self::Authorities(error.to_string())
    }
}

impl From<rustls::Error> for TlsPolicyError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// What all policies of a listener have in common.
pub(super) struct CommonParameters<'a> {
    pub(super) listener: &'a ListenerTlsConfig,
    /// Protocols for ALPN, in our order.
    pub(super) protocols: &'a [Vec<u8>],
    pub(super) transports: TlsTransports,
    pub(super) secrets: &'a TicketSecrets,
    /// Where sessions of QUIC are kept if it takes early data.
    pub(super) kept: Option<&'a KeptSessions>,
    pub(super) certificates: Arc<dyn ResolvesServerCert>,
}

/// What the sessions of a listener run over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TlsTransports {
    Tcp,
    TcpAndQuic,
}

/// What one policy demands.
pub(super) struct PolicyDemands<'a> {
    /// The names it is for; empty for the listener's own.
    pub(super) names: &'a [String],
    pub(super) min_version: TlsVersion,
    pub(super) client_auth: Option<&'a ClientAuthConfig>,
}

impl CommonParameters<'_> {
    /// Makes a policy. Reads the files that it names.
    pub(super) fn policy(&self, demands: &PolicyDemands<'_>) -> Result<TlsPolicy, TlsPolicyError> {
        let provider = Arc::new(provider(self.listener)?);
        let id = identity(demands)?;
        let versions: &[&SupportedProtocolVersion] = match demands.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let versions: Vec<_> = versions
            .iter()
            .copied()
            .filter(|version| has_suite_of(&provider, version))
            .collect();
        if versions.is_empty() {
            return Err(TlsPolicyError::NoCipher("1.3"));
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let authorities = demands
            .client_auth
            .map(|auth| tls::authorities_of(&auth.ca).map(Arc::new));
        let authorities = authorities.transpose()?;
        let builder = match demands.client_auth.zip(authorities.as_ref()) {
            Some((auth, roots)) => {
                builder.with_client_cert_verifier(verifier(auth, roots, &provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.certificates));
        config.alpn_protocols = self.protocols.to_vec();
        // All suites are good, and a client knows which is quick on its machine: unless the operator
        // has an order, that of the client counts.
        config.ignore_client_order = !self.listener.ciphers.is_empty();
        // Sessions live in tickets alone, which are bound to the policy.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let tickets = &self.listener.tickets;
        if tickets.enabled {
            let rotate = tickets.rotate.0;
            config.ticketer = Arc::new(PolicyTicketer::new(self.secrets.clone(), id, rotate));
        } else {
            config.send_tls13_tickets = 0;
        }
        if self.listener.keylog == KeyLogSwitch::On {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        let quic = match self.transports {
            TlsTransports::Tcp => None,
            TlsTransports::TcpAndQuic => {
                // What comes early was not seen with a certificate of its client.
                let kept = self.kept.filter(|_| demands.client_auth.is_none());
                let early = kept.map(|kept| kept.of(id));
                Some(Arc::new(quic::config(&config, early)))
            }
        };
        Ok(TlsPolicy {
            id,
            quic,
            forward: demands
                .client_auth
                .map_or(ClientCertificateField::Off, |auth| auth.forward),
            authorities,
            config: Arc::new(config),
        })
    }
}

impl TlsPolicy {
    /// The same with other certificates.
    pub(super) fn with_certificates(&self, certificates: &Arc<dyn ResolvesServerCert>) -> Self {
        let changed = |config: &Arc<ServerConfig>| {
            let mut config = ServerConfig::clone(config);
            config.cert_resolver = Arc::clone(certificates);
            Arc::new(config)
        };
        Self {
            id: self.id,
            forward: self.forward,
            authorities: self.authorities.clone(),
            config: changed(&self.config),
            quic: self.quic.as_ref().map(changed),
        }
    }
}

/// The digest of all that a session under the policy is checked by.
pub(super) fn identity(demands: &PolicyDemands<'_>) -> Result<TlsPolicyId, TlsPolicyError> {
    let mut all = digest::Context::new(&digest::SHA256);
    let mut add = |octets: &[u8]| {
        all.update(&(octets.len() as u64).to_be_bytes());
        all.update(octets);
    };
    add(demands.names.join("\n").as_bytes());
    add(&[match demands.min_version {
        TlsVersion::Tls12 => 2,
        TlsVersion::Tls13 => 3,
    }]);
    if let Some(auth) = demands.client_auth {
        add(&[match auth.mode {
            ClientAuthMode::Require => 1,
            ClientAuthMode::Request => 2,
        }]);
        let authorities = read_regular(&auth.ca).map_err(|error| {
            TlsPolicyError::Authorities(format!("{}: {error}", auth.ca.display()))
        })?;
        add(&authorities);
        // A session with a certificate that has been revoked since then must not be resumed.
        if let Some(file) = &auth.crl {
            add(&read_revocations(file)?);
        }
    }
    let mut id = [0; 32];
    id.copy_from_slice(all.finish().as_ref());
    Ok(TlsPolicyId(id))
}

fn verifier(
    auth: &ClientAuthConfig,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsPolicyError> {
    let roots = Arc::clone(roots);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if let Some(file) = &auth.crl {
        builder = builder
            .with_crls(revocations(file)?)
            .only_check_end_entity_revocation();
    }
    if auth.mode == ClientAuthMode::Request {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.map_err(|error| TlsPolicyError::Authorities(error.to_string()))
}

fn read_revocations(file: &Path) -> Result<Vec<u8>, TlsPolicyError> {
    read_regular(file).map_err(|error| TlsPolicyError::Revocations {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsPolicyError> {
    let wrong = |reason: String| TlsPolicyError::Revocations {
        file: file.to_owned(),
        reason,
    };
    let text = read_revocations(file)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| wrong(error.to_string()))?;
    match lists.is_empty() {
        true => Err(wrong("no list in it; expected PEM (X509 CRL)".to_owned())),
        false => Ok(lists),
    }
}

/// The provider with the cipher suites and groups that the configuration names.
fn provider(listener: &ListenerTlsConfig) -> Result<CryptoProvider, TlsPolicyError> {
    let all = tls::provider();
    let mut chosen = (*all).clone();
    if !listener.ciphers.is_empty() {
        let find = |(at, name): (usize, &String)| {
            let is = |known: &&rustls::SupportedCipherSuite| {
                let known = format!("{:?}", known.suite());
                known == *name || known.replacen("TLS13_", "TLS_", 1) == *name
            };
            let found = all.cipher_suites.iter().find(is).copied();
            found.ok_or_else(|| TlsPolicyError::Cipher {
                at,
                name: name.clone(),
                known: listed(
                    all.cipher_suites
                        .iter()
                        .map(|known| format!("{:?}", known.suite())),
                ),
            })
        };
        chosen.cipher_suites = listener
            .ciphers
            .iter()
            .enumerate()
            .map(find)
            .collect::<Result<_, _>>()?;
    }
    if !listener.groups.is_empty() {
        let find = |(at, name): (usize, &String)| {
            let is = |known: &&&'static dyn rustls::crypto::SupportedKxGroup| {
                format!("{:?}", known.name()).eq_ignore_ascii_case(name)
            };
            let found = all.kx_groups.iter().find(is).copied();
            found.ok_or_else(|| TlsPolicyError::Group {
                at,
                name: name.clone(),
                known: listed(
                    all.kx_groups
                        .iter()
                        .map(|known| format!("{:?}", known.name()).to_ascii_lowercase()),
                ),
            })
        };
        let groups = listener.groups.iter().enumerate();
        chosen.kx_groups = groups.map(find).collect::<Result<_, _>>()?;
    }
    Ok(chosen)
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn has_suite_of(provider: &CryptoProvider, version: &SupportedProtocolVersion) -> bool {
    let suites = provider.cipher_suites.iter();
    let mut versions = suites.map(|suite| suite.version().version);
    versions.any(|of| of == version.version)
}

/// The secrets of tickets: those of the files, or without any the listener's own.
pub(super) fn secrets(
    files: &[PathBuf],
    own: impl FnOnce() -> TicketSecrets,
) -> Result<TicketSecrets, TlsPolicyError> {
    if files.is_empty() {
        return Ok(own());
    }
    let secret = |(at, file): (usize, &PathBuf)| {
        let wrong = |reason: String| TlsPolicyError::TicketKey {
            at,
            file: file.clone(),
            reason,
        };
        let secret = read_regular(file).map_err(|error| wrong(error.to_string()))?;
        let short = secret.len() < LEAST_SECRET;
        let expected = format!(
            "{} bytes; expected at least {LEAST_SECRET} random ones, as of `openssl rand {LEAST_SECRET}`",
            secret.len()
        );
        if short {
            Err(wrong(expected))
        } else {
            Ok(secret)
        }
    };
    let all = files.iter().enumerate().map(secret);
    let all = all.collect::<Result<_, _>>()?;
    Ok(TicketSecrets::of(all))
}
