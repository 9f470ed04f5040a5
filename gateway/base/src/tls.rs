//! What every TLS connection of the process shares, of clients and servers: one cryptographic
//! provider, and how trusted authorities are read.
//!
//! Decision: AWS-LC is the only provider. rustls panics at its first use if two are compiled in
//! and none is chosen, so [`install_provider`] chooses it when the process starts, also for the
//! libraries of Redis and the bus.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The provider of all TLS connections.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Makes the provider the one that libraries use which are not given one. Must be called once,
/// before any of them is used; later calls do nothing.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// Why the trusted authorities can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustedAuthoritiesError {
    #[error("{}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error(
        "the certificates of the system can't be used: {0}; install the package ca-certificates, \
         or give a `ca_file`"
    )]
    System(String),
}

/// Reads a file that holds certificates, keys or the like. What is none, such as a pipe, may never end
/// or begin, and everybody who waits for it would wait for ever.
///
/// # Errors
/// If it can't be read, or is no regular file.
pub fn read_regular(file: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(file)?.is_file() {
        true => fs::read(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Reads the certificates of a PEM file as the authorities that are trusted.
///
/// # Errors
/// If the file can't be read, has no certificate, or one that can't be used.
pub fn authorities_of(file: &Path) -> Result<RootCertStore, TrustedAuthoritiesError> {
    let wrong = |reason: String| TrustedAuthoritiesError::File {
        file: file.to_owned(),
        reason,
    };
    let text = read_regular(file).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong(
            "no certificate in it; expected one or more in PEM form".to_owned(),
        ));
    }
    Ok(roots)
}

/// The authorities that the system trusts.
///
/// # Errors
/// If there are none that can be used.
pub fn authorities_of_the_system() -> Result<RootCertStore, TrustedAuthoritiesError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(ToString::to_string);
        return Err(TrustedAuthoritiesError::System(
            reason.unwrap_or_else(|| "there are none".to_owned()),
        ));
    }
    Ok(roots)
}
