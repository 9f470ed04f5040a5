//! What is risky about a certificate that can be used: some clients refuse it, or will soon.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lamina_base::tls::read_regular;
use rustls::RootCertStore;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{ServerCertificate, instant};
use crate::date;

/// The fewest bits of an RSA key that clients accept (Baseline Requirements §6.1.5).
pub(super) const LEAST_RSA_BITS: usize = 2_048;

/// A longer chain does not fit into what a QUIC server may send to an address before it is
/// verified: three times the client's first datagram of 1,200 octets (RFC 9000 §8.1).
const LONG_CHAIN: usize = 3 << 10;

/// The object identifiers of signatures over SHA-1 or MD5: sha1WithRSAEncryption,
/// md5WithRSAEncryption, dsa-with-sha1, ecdsa-with-SHA1.
const WEAK_SIGNATURES: [&str; 4] = [
    "1.2.840.113549.1.1.5",
    "1.2.840.113549.1.1.4",
    "1.2.840.10040.4.3",
    "1.2.840.10045.4.1",
];

/// The access method caIssuers (RFC 5280 §4.2.2.1): where the issuer's certificate is.
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// The extension with which a certificate says what its server must do (RFC 7633 §4).
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";

/// Something that is risky about a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertificateRemark {
    Expired(SystemTime),
    NotYetValid(SystemTime),
    /// Less than a third of its life is left.
    EndsSoon(SystemTime),
    /// Each certificate must be followed by that of its issuer (RFC 5246 §7.4.2).
    WrongOrder,
    /// This certificate has no part in the chain.
    NotOfTheChain(String),
    /// The certificate of this issuer, which is not a root, is not in the file.
    MissingIntermediate(String),
    /// The RSA key of this certificate of the chain has too few bits.
    SmallKey {
        subject: String,
        bits: usize,
    },
    /// This certificate of the chain is signed over a broken digest.
    WeakSignature(String),
    /// The extended key usage does not have serverAuth.
    NotForServers,
    /// The chain has so many octets.
    LongChain(usize),
    /// Its basic constraints say CA:TRUE, as those of `openssl req -x509` do.
    OfAnAuthority,
    /// Clients that heed its TLS feature want a stapled answer of OCSP (RFC 7633 §4.2.3), and get none.
    DemandsStapling,
}

impl CertificateRemark {
    /// Whether no client accepts the certificate now.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::NotYetValid(_))
    }
}

impl fmt::Display for CertificateRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "it has expired on {}", WrittenDate(*at)),
            Self::NotYetValid(from) => write!(f, "it is not valid before {}", WrittenDate(*from)),
            Self::EndsSoon(at) => write!(
                f,
                "less than a third of its life is left: it expires on {}",
                WrittenDate(*at)
            ),
            Self::WrongOrder => f.write_str(
                "its chain is not in order; expected the certificate of the server first, then \
                 that of its issuer, and so on",
            ),
            Self::NotOfTheChain(subject) => write!(
                f,
                "the certificate of {subject} in the file is no issuer of it; expected those of \
                 its issuers alone"
            ),
            Self::MissingIntermediate(issuer) => write!(
                f,
                "the certificate of its issuer {issuer} is missing, which clients do not know; \
                 expected it behind that of the server"
            ),
            Self::SmallKey { subject, bits } => write!(
                f,
                "the RSA key of {subject} has {bits} bits; expected {LEAST_RSA_BITS} or more"
            ),
            Self::WeakSignature(subject) => write!(
                f,
                "the certificate of {subject} is signed over SHA-1 or MD5, which can be forged; \
                 expected one signed over SHA-256 or better"
            ),
            Self::NotForServers => f.write_str(
                "it does not say that it is for servers (extended key usage serverAuth), and \
                 clients may refuse it",
            ),
            Self::LongChain(octets) => write!(
                f,
                "its chain has {octets} bytes; above {LONG_CHAIN} a handshake may need a further \
                 round trip, over HTTP/3 always"
            ),
            Self::OfAnAuthority => f.write_str(
                "it is that of an authority (CA:TRUE), which some clients refuse for a server; \
                 expected one with basicConstraints CA:FALSE",
            ),
            Self::DemandsStapling => f.write_str(
                "it demands a stapled answer of OCSP (must-staple), which Lamina does not send, and \
                 clients that heed that refuse it; expected one without the demand",
            ),
        }
    }
}

/// A moment, as HTTP writes it.
pub struct WrittenDate(pub SystemTime);

impl fmt::Display for WrittenDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(date::format(self.0).as_bytes()))
    }
}

/// Finds what is risky about a certificate. `roots` are the authorities that clients know; if there
/// are none, it is not looked for missing issuers.
pub fn of(
    certificate: &ServerCertificate,
    roots: &RootCertStore,
    now: SystemTime,
) -> Vec<CertificateRemark> {
    let chain = &certificate.certified.cert;
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der));
    let Ok(parsed) = parsed.collect::<Result<Vec<_>, _>>() else {
        return Vec::new();
    };
    let parsed: Vec<_> = parsed.into_iter().map(|(_, one)| one).collect();
    let Some(leaf) = parsed.first() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    found.extend(life(leaf, now));
    found.extend(order(&parsed, roots));
    found.extend(parsed.iter().flat_map(strength));
    if !is_for_servers(leaf) {
        found.push(CertificateRemark::NotForServers);
    }
    if leaf.is_ca() {
        found.push(CertificateRemark::OfAnAuthority);
    }
    if demands_stapling(leaf) {
        found.push(CertificateRemark::DemandsStapling);
    }
    let octets = chain.iter().map(|der| der.len()).sum();
    if octets > LONG_CHAIN {
        found.push(CertificateRemark::LongChain(octets));
    }
    found
}

/// When a list of revoked certificates in this file should have been replaced by another one. None
/// if that is still to come, or the file can't be read, which is an error elsewhere.
pub fn overdue_revocations(file: &Path, now: SystemTime) -> Option<SystemTime> {
    let text = read_regular(file).ok()?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&text).flatten();
    let next = lists.filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(&list).ok()?;
        Some(instant(parsed.next_update()?.timestamp()))
    });
    next.min().filter(|next| *next <= now)
}

fn life(leaf: &X509Certificate<'_>, now: SystemTime) -> Option<CertificateRemark> {
    let validity = leaf.validity();
    let from = instant(validity.not_before.timestamp());
    let to = instant(validity.not_after.timestamp());
    if to <= now {
        return Some(CertificateRemark::Expired(to));
    }
    if from > now {
        return Some(CertificateRemark::NotYetValid(from));
    }
    let whole = to.duration_since(from).unwrap_or(Duration::ZERO);
    let left = to.duration_since(now).unwrap_or(Duration::ZERO);
    (left < whole / 3).then_some(CertificateRemark::EndsSoon(to))
}

/// Follows the issuers from the leaf on, and compares that with the order of the file.
fn order(chain: &[X509Certificate<'_>], roots: &RootCertStore) -> Vec<CertificateRemark> {
    let mut found = Vec::new();
    let mut path = vec![0];
    while let Some(next) = next_issuer(chain, &path) {
        path.push(next);
    }
    if !path.is_sorted() {
        found.push(CertificateRemark::WrongOrder);
    }
    let strangers = (0..chain.len()).filter(|at| !path.contains(at));
    found.extend(strangers.map(|at| CertificateRemark::NotOfTheChain(subject(&chain[at]))));
    let last = path.last().and_then(|at| chain.get(*at));
    found.extend(last.and_then(|last| missing_issuer(last, roots)));
    found
}

/// The certificate of the issuer of the last one in `path`.
fn next_issuer(chain: &[X509Certificate<'_>], path: &[usize]) -> Option<usize> {
    let last = chain.get(*path.last()?)?;
    let issues = |at: &usize| chain[*at].subject().as_raw() == last.issuer().as_raw();
    let mut others = (0..chain.len()).filter(|at| !path.contains(at));
    others.find(issues)
}

/// Public authorities say where the certificate of an issuer is. One that stands above all others
/// and is known to clients need not be sent; of private authorities nobody can say that here.
fn missing_issuer(last: &X509Certificate<'_>, roots: &RootCertStore) -> Option<CertificateRemark> {
    let issuer = last.issuer();
    if issuer.as_raw() == last.subject().as_raw() || roots.is_empty() {
        return None;
    }
    let known = roots.subjects();
    if known.iter().any(|known| known.as_ref() == issuer.as_raw()) || !names_its_issuer(last) {
        return None;
    }
    Some(CertificateRemark::MissingIntermediate(issuer.to_string()))
}

fn names_its_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::AuthorityInfoAccess(access)
            if access.iter().any(|one| one.access_method.to_id_string() == CA_ISSUERS))
    })
}

fn strength(certificate: &X509Certificate<'_>) -> Vec<CertificateRemark> {
    let mut found = Vec::new();
    if let Some(bits) = rsa_bits(certificate).filter(|bits| *bits < LEAST_RSA_BITS) {
        let subject = subject(certificate);
        found.push(CertificateRemark::SmallKey { subject, bits });
    }
    let is_root = certificate.subject().as_raw() == certificate.issuer().as_raw();
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    // Nobody verifies the signature of a root.
    if !is_root && WEAK_SIGNATURES.contains(&&*algorithm) {
        found.push(CertificateRemark::WeakSignature(subject(certificate)));
    }
    found
}

/// The bits of an RSA key. None if the key is none of RSA.
pub(super) fn rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()),
        _ => None,
    }
}

fn is_for_servers(leaf: &X509Certificate<'_>) -> bool {
    let usage = leaf.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.server_auth || usage.value.any)
}

/// Whether its TLS features have `status_request` (5) or `status_request_v2` (17).
fn demands_stapling(leaf: &X509Certificate<'_>) -> bool {
    let features = leaf.extensions().iter();
    let features = features.filter(|one| one.oid.to_id_string() == TLS_FEATURE);
    // A sequence of small numbers, each of which has three octets.
    let mut features = features.flat_map(|one| one.value.get(2..).unwrap_or_default().chunks(3));
    features.any(|feature| matches!(feature, [2, 1, 5 | 17]))
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    match certificate.subject().to_string() {
        text if text.is_empty() => "the server".to_owned(),
        text => text,
    }
}
