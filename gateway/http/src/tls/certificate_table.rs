//! Which certificate a client gets: [`CertificateTable`].

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::ServerCertificate;
use super::config::ListenerTlsConfig;
use super::names::{ServerNameTable, canonical};
use super::setup_check::is_issued_later;
use super::setup_error::{TlsSetupError, TlsSetupFault};

/// Certificates by name.
#[derive(Debug, Default)]
pub(super) struct CertificateTable {
    pub(super) by_name: ServerNameTable<Vec<Arc<ServerCertificate>>>,
    /// For clients without a name or with an unknown one.
    pub(super) default: Option<Arc<ServerCertificate>>,
    pub(super) all: Vec<Arc<ServerCertificate>>,
}

impl CertificateTable {
    pub(super) fn new(
        all: Vec<Arc<ServerCertificate>>,
        config: &ListenerTlsConfig,
    ) -> Result<Self, TlsSetupError> {
        let mut by_name = ServerNameTable::<Vec<_>>::default();
        for certificate in &all {
            for name in &certificate.names {
                by_name.entry(name).push(Arc::clone(certificate));
            }
        }
        let default = config.default.as_deref();
        let found = default.and_then(|file| all.iter().find(|one| one.file == file));
        let default = match (default, found.cloned()) {
            (Some(file), None) if !is_issued_later(config, file) => {
                let file = file.to_owned();
                return Err(TlsSetupError::at(
                    "default",
                    TlsSetupFault::Default { file },
                ));
            }
            (_, found) => found,
        };
        Ok(Self {
            by_name,
            default,
            all,
        })
    }

    pub(super) fn choose(
        &self,
        name: Option<&str>,
        hello: &ClientHello<'_>,
    ) -> Option<&Arc<ServerCertificate>> {
        self.by_name(name, hello).or(self.default.as_ref())
    }

    pub(super) fn by_name(
        &self,
        name: Option<&str>,
        hello: &ClientHello<'_>,
    ) -> Option<&Arc<ServerCertificate>> {
        let candidates = self.by_name.get(name?)?;
        let usable = candidates.iter().filter(|one| is_usable(one, hello));
        // Of equal ones the first.
        let best = usable.min_by_key(|one| (one.is_expired(), !one.is_ecdsa()));
        // If the client can use none, the handshake fails.
        best.or(candidates.first())
    }
}

/// Whether the client accepts the certificate's kind of key.
fn is_usable(certificate: &ServerCertificate, hello: &ClientHello<'_>) -> bool {
    let key = &certificate.certified.key;
    let has_suite = !certificate.is_ecdsa() || hello.cipher_suites().iter().any(allows_ecdsa);
    has_suite && key.choose_scheme(hello.signature_schemes()).is_some()
}

/// Whether a session of this suite may have a server with an ECDSA key. The suites of TLS 1.3 say
/// nothing about keys.
fn allows_ecdsa(suite: &CipherSuite) -> bool {
    let is_of_1_3 = u16::from(*suite) >> 8 == 0x13;
    is_of_1_3
        || matches!(
            suite,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        )
}

/// Gives rustls the certificate for a client.
#[derive(Debug)]
pub(super) struct ByClientHello(pub(super) Arc<CertificateTable>);

impl ResolvesServerCert for ByClientHello {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(canonical);
        let chosen = self.0.choose(name.as_deref(), &hello)?;
        Some(Arc::clone(&chosen.certified))
    }
}
