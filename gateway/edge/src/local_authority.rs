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
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;

use crate::config::GatewayConfig;
use crate::http::tls::certificate::{CertificatePair, ServerCertificate};
use crate::http::tls::config::{LocalCertificateConfig, ServerNamePattern};

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

/// Whether there is a certificate for exactly these names, of the authority that is there, that does
/// not end soon.
fn is_good(local: &LocalCertificateConfig, cert: &Path, key: &Path) -> bool {
    let Ok(pair) = CertificatePair::read(cert, key) else {
        return false;
    };
    let Ok(found) = ServerCertificate::new((cert, key), &pair, &[]) else {
        return false;
    };
    let count = found.names.len() + found.addresses.len();
    let has = |name: &String| match name.parse() {
        Ok(address) => found.addresses.contains(&address),
        Err(_) => ServerNamePattern::parse(name).is_some_and(|name| found.names.contains(&name)),
    };
    let left = found.not_after.duration_since(SystemTime::now());
    left.is_ok_and(|left| left > RENEWED_WITH)
        && count == local.names.len()
        && local.names.iter().all(has)
        && is_of_authority(&pair.cert, &local.dir)
}

/// Whether a certificate is of the authority in this folder, whose key is there as well.
fn is_of_authority(certificate: &[u8], dir: &Path) -> bool {
    let key_of = |pem: &[u8], id: fn(&ParsedExtension<'_>) -> Option<Vec<u8>>| {
        let (_, section) = parse_x509_pem(pem).ok()?;
        let parsed = section.parse_x509().ok()?;
        let mut extensions = parsed.extensions().iter();
        extensions.find_map(|extension| id(extension.parsed_extension()))
    };
    let issuer = key_of(certificate, |extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(found) => {
            Some(found.key_identifier.as_ref()?.0.to_vec())
        }
        _ => None,
    });
    let authority = fs::read(dir.join("ca.pem")).ok().and_then(|pem| {
        key_of(&pem, |extension| match extension {
            ParsedExtension::SubjectKeyIdentifier(found) => Some(found.0.to_vec()),
            _ => None,
        })
    });
    issuer.is_some() && issuer == authority && dir.join("ca.key").is_file()
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

    #[test]
    fn a_wildcard_is_issued_once_and_again_when_its_authority_is_gone_or_another() {
        let dir = tempfile::tempdir().unwrap();
        let local = local(dir.path(), &["*.shop.test", "Shop.test", "::1"]);
        issue(&local).unwrap();
        let (cert, _) = local.files();
        let issued = || fs::read(&cert).unwrap();
        let first = issued();
        issue(&local).unwrap();
        assert_eq!(issued(), first);
        fs::remove_file(dir.path().join("ca.pem")).unwrap();
        issue(&local).unwrap();
        let second = issued();
        assert_ne!(second, first);
        assert!(dir.path().join("ca.pem").is_file());
        let other = tempfile::tempdir().unwrap();
        issue(&self::local(other.path(), &["a.test"])).unwrap();
        for file in ["ca.pem", "ca.key"] {
            fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
        }
        issue(&local).unwrap();
        assert_ne!(issued(), second);
    }
}
