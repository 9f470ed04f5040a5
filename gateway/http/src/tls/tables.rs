//! Certificates and policies by name: [`TlsTables`].

use std::sync::Arc;

use rustls::quic::Suite;
use rustls::server::ResolvesServerCert;

use super::certificate::ServerCertificate;
use super::certificate_table::{ByClientHello, CertificateTable};
use super::config::ListenerTlsConfig;
use super::names::{ServerNamePattern, ServerNameTable};
use super::policy::{self, CommonParameters, PolicyDemands, TlsPolicy, TlsTransports};
use super::quic::{self, KeptSessions};
use super::setup_error::TlsSetupError;
use super::tickets::{TicketSecrets, TlsPolicyId};
use crate::config::Protocol;

/// Certificates and policies by name, as they are at one time.
pub(super) struct TlsTables {
    pub(super) certificates: Arc<CertificateTable>,
    /// That of the listener, then those of names.
    pub(super) policies: Vec<Arc<TlsPolicy>>,
    /// Which of `policies` a name has.
    policy_of: ServerNameTable<usize>,
    /// What protects the first packets of QUIC. None if the listener does not speak HTTP/3.
    pub(super) quic: Option<Suite>,
}

impl TlsTables {
    pub(super) fn new(
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

    /// The same policies with other certificates.
    ///
    /// # Errors
    /// If one of them should be the default and is not there.
    pub(super) fn with_certificates(
        &self,
        config: &ListenerTlsConfig,
        certificates: Vec<Arc<ServerCertificate>>,
    ) -> Result<Self, TlsSetupError> {
        let certificates = Arc::new(CertificateTable::new(certificates, config)?);
        let resolver: Arc<dyn ResolvesServerCert> =
            Arc::new(ByClientHello(Arc::clone(&certificates)));
        let policies = self.policies.iter();
        let policies = policies.map(|policy| Arc::new(policy.with_certificates(&resolver)));
        Ok(Self {
            certificates,
            policies: policies.collect(),
            policy_of: self.policy_of.clone(),
            quic: self.quic,
        })
    }

    pub(super) fn policy(&self, name: Option<&str>) -> &Arc<TlsPolicy> {
        let at = name.and_then(|name| self.policy_of.get(name));
        &self.policies[at.copied().unwrap_or(0)]
    }

    /// The policies of names, as their files make them now. None if one can't be read.
    pub(super) fn policies_now(config: &ListenerTlsConfig) -> Option<Vec<TlsPolicyId>> {
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
    pub(super) fn has(&self, policies: &[TlsPolicyId]) -> bool {
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
