//! A certificate of the server with its key, as files hold them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use lamina_base::tls;
use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::CertificateSource;
use super::names::ServerNamePattern;
use super::remarks::{LEAST_RSA_BITS, rsa_bits};

/// A certificate with its chain and key, ready for handshakes.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The file that it came from, by which operators know it.
    pub file: PathBuf,
    /// The names that it is used for.
    pub names: Vec<ServerNamePattern>,
    /// The addresses that stand in it. No client asks for them by SNI.
    pub addresses: Vec<IpAddr>,
    pub not_after: SystemTime,
    pub(super) certified: Arc<CertifiedKey>,
}

/// More octets than any chain or key has.
const MOST_OCTETS: u64 = 1 << 20;

/// The octets of the two files of a certificate.
#[derive(Clone)]
pub struct CertificatePair {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// Why a certificate can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {reason}", file.display())]
    Read { file: PathBuf, reason: String },
    #[error(
        "{}: no certificate in it; expected PEM, that of the server first",
        file.display()
    )]
    NoCertificate { file: PathBuf },
    #[error("{}: not a certificate: {reason}", file.display())]
    Malformed { file: PathBuf, reason: String },
    #[error("{}: no private key that can be used: {reason}; expected PEM", file.display())]
    Key { file: PathBuf, reason: String },
    #[error(
        "{} and {} do not belong together: the key is another certificate's",
        cert.display(),
        key.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "{}: it names no host; expected names in its subjectAltName",
        file.display()
    )]
    NoNames { file: PathBuf },
    #[error("{}: it has expired", file.display())]
    Expired { file: PathBuf },
    #[error(
        "{}: its RSA key has {bits} bits, which can be broken; expected 2048 or more",
        file.display()
    )]
    SmallKey { file: PathBuf, bits: usize },
    #[error(
        "{}: the name {name} does not stand in it; expected one of: {}",
        file.display(),
        listed(present)
    )]
    NotItsName {
        file: PathBuf,
        name: String,
        present: Vec<ServerNamePattern>,
    },
}

impl CertificateError {
    /// The key of a source of certificates that it is about, as in `names[1]`.
    pub(super) fn key(&self, source: &CertificateSource) -> String {
        let whole = [
            ("dir", source.dir.is_some()),
            ("local", source.local.is_some()),
        ];
        if let Some((key, _)) = whole.iter().find(|(_, given)| *given) {
            return (*key).to_owned();
        }
        match self {
            Self::NotItsName { name, .. } => {
                let pattern = ServerNamePattern::parse(name);
                let mut names = source.names.iter();
                let at = names.position(|given| ServerNamePattern::parse(given) == pattern);
                at.map_or_else(|| "names".to_owned(), |at| format!("names[{at}]"))
            }
            Self::Key { .. } | Self::Mismatch { .. } => "key".to_owned(),
            Self::Read { file, .. } if source.key.as_ref() == Some(file) => "key".to_owned(),
            Self::Read { .. }
            | Self::NoCertificate { .. }
            | Self::Malformed { .. }
            | Self::NoNames { .. }
            | Self::Expired { .. }
            | Self::SmallKey { .. } => "cert".to_owned(),
        }
    }
}

fn listed(names: &[ServerNamePattern]) -> String {
    let names = names.iter().map(ToString::to_string);
    names.collect::<Vec<_>>().join(", ")
}

impl CertificatePair {
    /// Reads the two files.
    ///
    /// # Errors
    /// If one of them can't be read.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let read = |file: &Path| {
            read_whole(file).map_err(|error| CertificateError::Read {
                file: file.to_owned(),
                reason: error.to_string(),
            })
        };
        Ok(Self {
            cert: read(cert)?,
            key: read(key)?,
        })
    }

    /// A number that differs when the content of one of the files differs.
    pub fn digest(&self) -> [u8; 32] {
        let mut both = digest::Context::new(&digest::SHA256);
        both.update(&(self.cert.len() as u64).to_be_bytes());
        both.update(&self.cert);
        both.update(&self.key);
        let mut out = [0; 32];
        out.copy_from_slice(both.finish().as_ref());
        out
    }
}

impl ServerCertificate {
    /// Takes the certificates and the key from their files' content. `only` narrows the names that
    /// it is used for.
    ///
    /// # Errors
    /// If they can't be used together.
    pub fn new(
        files: (&Path, &Path),
        pair: &CertificatePair,
        only: &[ServerNamePattern],
    ) -> Result<Self, CertificateError> {
        let (cert_file, _) = files;
        let file = || cert_file.to_owned();
        let malformed = |reason: String| CertificateError::Malformed {
            file: file(),
            reason,
        };
        let chain = CertificateDer::pem_slice_iter(&pair.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| malformed(in_words(&error)))?;
        let Some(leaf) = chain.first() else {
            return Err(CertificateError::NoCertificate { file: file() });
        };
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| malformed(error.to_string()))?;
        let (names, addresses) = names_of(&parsed);
        if names.is_empty() && addresses.is_empty() {
            return Err(CertificateError::NoNames { file: file() });
        }
        let stranger =
            |name: &&ServerNamePattern| !names.iter().any(|present| present.covers_all_of(name));
        if let Some(name) = only.iter().find(stranger) {
            return Err(CertificateError::NotItsName {
                file: file(),
                name: name.to_string(),
                present: names,
            });
        }
        if let Some(bits) = rsa_bits(&parsed).filter(|bits| *bits < LEAST_RSA_BITS) {
            return Err(CertificateError::SmallKey { file: file(), bits });
        }
        let not_after = instant(parsed.validity().not_after.timestamp());
        let certified = certified(chain.clone(), files, &pair.key)?;
        Ok(Self {
            file: file(),
            names: match only.is_empty() {
                true => names,
                false => only.to_vec(),
            },
            addresses,
            not_after,
            certified: Arc::new(certified),
        })
    }

    /// Whether clients are shown the same octets.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// Whether a client that asks for this host may trust it. `host` is a name in any case, or an
    /// address.
    pub fn covers(&self, host: &str) -> bool {
        match super::names::canonical(host) {
            Some(name) => self.names.iter().any(|pattern| pattern.covers(&name)),
            None => Self::address_of(host).is_some_and(|address| self.covers_address(address)),
        }
    }

    /// The same for an address.
    pub(super) fn covers_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// The address that a host is. None: it is a name, or neither.
    pub(super) fn address_of(host: &str) -> Option<IpAddr> {
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()
    }

    /// Whether it is no longer valid.
    pub fn is_expired(&self) -> bool {
        self.not_after <= SystemTime::now()
    }

    /// Whether its key is one of ECDSA, which is quicker than RSA.
    pub(super) fn is_ecdsa(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::ECDSA
    }
}

/// Reads a file. What is none, such as a pipe, may never end or begin, and everybody who waits for the
/// other files of the listener would wait for it.
fn read_whole(file: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(file)?;
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if about.len() > MOST_OCTETS {
        let size = about.len();
        let told = format!("it has {size} bytes; expected a certificate or a key in PEM");
        return Err(io::Error::other(told));
    }
    fs::read(file)
}

/// The error of a PEM file in words: that of a section without an end has octets in it.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle of a section".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins in no right way".to_owned(),
        other => other.to_string(),
    }
}

/// A certificate and its key that need no names, such as those of a client.
///
/// # Errors
/// If they can't be used together.
pub fn certified_key(
    files: (&Path, &Path),
    pair: &CertificatePair,
) -> Result<CertifiedKey, CertificateError> {
    let file = files.0;
    let chain = CertificateDer::pem_slice_iter(&pair.cert).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| CertificateError::Malformed {
        file: file.to_owned(),
        reason: in_words(&error),
    })?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate {
            file: file.to_owned(),
        });
    }
    certified(chain, files, &pair.key)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    (cert, key): (&Path, &Path),
    text: &[u8],
) -> Result<CertifiedKey, CertificateError> {
    let wrong = |reason: String| CertificateError::Key {
        file: key.to_owned(),
        reason,
    };
    // By PKCS #8, and by what OpenSSL wrote before it (RFC 1421 §4.6.1.1).
    let marks = [
        &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ];
    let has = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    if marks.into_iter().any(has) {
        return Err(wrong("it is encrypted by a passphrase".to_owned()));
    }
    let der = PrivateKeyDer::from_pem_slice(text).map_err(|error| wrong(in_words(&error)))?;
    let signing = tls::provider().key_provider.load_private_key(der);
    let signing = signing.map_err(|error| wrong(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signing);
    certified
        .keys_match()
        .map_err(|_| CertificateError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        })?;
    Ok(certified)
}

/// The names and the addresses of the extension subjectAltName. The subject's common name counts
/// nothing (RFC 9525 §2).
fn names_of(certificate: &X509Certificate<'_>) -> (Vec<ServerNamePattern>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let found = certificate.subject_alternative_name().ok().flatten();
    for name in found.iter().flat_map(|found| &found.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.extend(ServerNamePattern::parse(name)),
            GeneralName::IPAddress(octets) => addresses.extend(address_of(octets)),
            _ => {}
        }
    }
    (names, addresses)
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| v6()).ok()
}

/// The moment of a certificate's clock, in seconds since 1970.
pub(super) fn instant(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    match seconds >= 0 {
        true => UNIX_EPOCH + span,
        false => UNIX_EPOCH,
    }
}
