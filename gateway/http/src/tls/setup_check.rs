//! Whether what a listener says of TLS fits the certificates that it has.

use std::path::Path;
use std::sync::Arc;

use super::certificate::ServerCertificate;
use super::config::{CertificateSource, ListenerTlsConfig};
use super::names::ServerNamePattern;
use super::obtained::names_of;
use super::setup_error::{TlsSetupError, TlsSetupFault};

/// Whether a local authority will write this certificate.
pub(super) fn is_issued_later(config: &ListenerTlsConfig, file: &Path) -> bool {
    let unissued = config.certificates.iter().filter(|one| one.is_unissued());
    let mut locals = unissued.filter_map(|source| source.local.as_ref());
    locals.any(|local| local.files().0 == file)
}

/// Refuses policies for names that no certificate is for: a name that is written wrongly would
/// leave the one that was meant without its policy. Folders may get further certificates, and on
/// demand there may be one for every name.
pub(super) fn policies_for_nobody(
    config: &ListenerTlsConfig,
    certificates: &[Arc<ServerCertificate>],
) -> Result<(), TlsSetupError> {
    let grows = |source: &CertificateSource| source.dir.is_some() || source.is_on_demand();
    if config.certificates.iter().any(grows) {
        return Ok(());
    }
    let mut known: Vec<_> = certificates
        .iter()
        .flat_map(|one| one.names.clone())
        .collect();
    for source in &config.certificates {
        let later = match source.local.as_ref().filter(|_| source.is_unissued()) {
            Some(local) => local.names.clone(),
            None if source.acme.is_some() => names_of(source),
            None => Vec::new(),
        };
        known.extend(
            later
                .iter()
                .filter_map(|name| ServerNamePattern::parse(name)),
        );
    }
    for (n, policy) in config.policies.iter().enumerate() {
        for (m, name) in policy.names.iter().enumerate() {
            let Some(pattern) = ServerNamePattern::parse(name) else {
                continue;
            };
            if !known.iter().any(|known| known.meets(&pattern)) {
                return Err(TlsSetupError::at(
                    format!("policies[{n}].names[{m}]"),
                    TlsSetupFault::PolicyForNobody { name: name.clone() },
                ));
            }
        }
    }
    Ok(())
}
