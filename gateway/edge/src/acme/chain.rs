//! What is read from chains of certificates.

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::schedule::CertificateValidity;

/// What the first certificate of a chain says.
pub struct LeafFacts {
    pub validity: CertificateValidity,
    /// A number that follows from the certificate.
    pub dice: u32,
    /// Tells the certificate from all others.
    pub digest: String,
    /// How its issuer knows it (RFC 9773 §4.1). None if it does not name its issuer's key.
    pub identifier: Option<CertificateIdentifier<'static>>,
}

/// Reads the first certificate of a chain in PEM. None if there is none that can be read.
pub fn leaf(chain: &str) -> Option<LeafFacts> {
    let der = first(chain)?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let at = |time: i64| u64::try_from(time).unwrap_or(0);
    let validity = CertificateValidity {
        not_before: at(parsed.validity().not_before.timestamp()),
        not_after: at(parsed.validity().not_after.timestamp()),
    };
    let digest = digest(&SHA256, &der);
    let octets = digest.as_ref();
    let identifier = CertificateIdentifier::try_from(&der).ok();
    Some(LeafFacts {
        validity,
        dice: u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]),
        digest: octets.iter().map(|octet| format!("{octet:02x}")).collect(),
        identifier: identifier.map(CertificateIdentifier::into_owned),
    })
}

/// The first certificate of a chain in PEM.
pub fn first(chain: &str) -> Option<CertificateDer<'static>> {
    certificates(chain).next()
}

/// Whether the last certificate of a chain was given out by an authority with this common name.
pub fn ends_at(chain: &str, common_name: &str) -> bool {
    let Some(last) = certificates(chain).last() else {
        return false;
    };
    let Ok((_, parsed)) = X509Certificate::from_der(&last) else {
        return false;
    };
    let mut names = parsed.issuer().iter_common_name();
    names.any(|name| name.as_str() == Ok(common_name))
}

fn certificates(chain: &str) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(chain.as_bytes()).map_while(Result::ok)
}
