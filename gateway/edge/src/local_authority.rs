//! Certificates for local use, issued by an authority that is made on the spot.
//!
//! A certificate source with `local` names a folder. The authority lives there: `ca.pem`, which
//! clients must be told to trust, and `ca.key`, which only the user of the process can read. The
//! certificate and its key stand beside them, and are issued again when a third of their life is
//! left. From there on they are files like all others.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::config::GatewayConfig;
use crate::http::tls::certificate::{CertificatePair, ServerCertificate};
use crate::http::tls::config::LocalCertificateConfig;

/// The life of a certificate, and how much of it is left when it is issued again.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
const RENEWED_WITH: Duration = Duration::from_secs(30 * 86_400);
/// The life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clocks of clients may be behind.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Why a local certificate can't be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalCertificateError {
    #[error("tls.certificates: local: {}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("tls.certificates: local: {0}")]
    Issue(#[from] rcgen::Error),
}

/// Issues the local certificates of all listeners that are not there or end soon.
///
/// # Errors
/// If one can't be issued or written.
pub fn issue_all(config: &GatewayConfig) -> Result<(), LocalCertificateError> {
    let listeners = config
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref());
    let sources = listeners.flat_map(|tls| &tls.certificates);
    for local in sources.filter_map(|source| source.local.as_ref()) {
        issue(local)?;
    }
    Ok(())
}

fn issue(local: &LocalCertificateConfig) -> Result<(), LocalCertificateError> {
    let (cert, key) = local.files();
    if is_good(local, &cert, &key) {
        return Ok(());
    }
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |source| LocalCertificateError::File { file, source }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&local.dir)
        .map_err(failed(&local.dir))?;
    let issuer = authority(&local.dir)?;
    let mut params = CertificateParams::new(local.names.clone())?;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFE).into();
    params
        .distinguished_name
        .push(DnType::CommonName, "Lamina local certificate");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate()?;
    let certificate = params.signed_by(&pair, &issuer)?;
    write(&key, pair.serialize_pem().as_bytes(), 0o600).map_err(failed(&key))?;
    write(&cert, certificate.pem().as_bytes(), 0o644).map_err(failed(&cert))?;
    tracing::info!(names = local.names.join(", "), file = %cert.display(), "local certificate issued");
    Ok(())
}

/// Whether there is a certificate for exactly these names that does not end soon.
fn is_good(local: &LocalCertificateConfig, cert: &Path, key: &Path) -> bool {
    let Ok(pair) = CertificatePair::read(cert, key) else {
        return false;
    };
    let Ok(found) = ServerCertificate::new((cert, key), &pair, &[]) else {
        return false;
    };
    let count = found.names.len() + found.addresses.len();
    let left = found.not_after.duration_since(SystemTime::now());
    left.is_ok_and(|left| left > RENEWED_WITH)
        && count == local.names.len()
        && local.names.iter().all(|name| found.covers(name))
}

/// The authority of a folder, which is made if it is not there.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, LocalCertificateError> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Lamina local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    if let (Ok(key), true) = (fs::read_to_string(&key), cert.is_file()) {
        return Ok(Issuer::new(params, KeyPair::from_pem(&key)?));
    }
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |source| LocalCertificateError::File { file, source }
    };
    write(&key, pair.serialize_pem().as_bytes(), 0o600).map_err(failed(&key))?;
    write(&cert, certificate.pem().as_bytes(), 0o644).map_err(failed(&cert))?;
    Ok(Issuer::new(params, pair))
}

/// Writes a file as a whole, or not at all.
fn write(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut open = options.open(&part)?;
    open.write_all(content)?;
    open.sync_all()?;
    fs::rename(&part, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn local(dir: &Path, names: &[&str]) -> LocalCertificateConfig {
        LocalCertificateConfig {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            dir: dir.to_owned(),
        }
    }

    #[test]
    fn a_certificate_is_issued_once_and_again_for_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("below/ca");
        let first = local(&dir, &["localhost", "127.0.0.1"]);
        issue(&first).unwrap();
        let (cert, key) = first.files();
        let (issued, authority) = (
            fs::read(&cert).unwrap(),
            fs::read(dir.join("ca.pem")).unwrap(),
        );
        for secret in [&key, &dir.join("ca.key")] {
            assert_eq!(
                fs::metadata(secret).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        issue(&first).unwrap();
        assert_eq!(fs::read(&cert).unwrap(), issued);
        issue(&local(&dir, &["localhost", "::1"])).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), issued);
        assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), authority);
    }
}
