//! The field `Client-Cert-Chain` (RFC 9440 §2.3): by which authorities a certificate of a client was
//! verified.
//!
//! A client may send certificates that have no part in that, and in any order. rustls does not tell
//! which of them it used, so the path is built again, by the same library.

use http::HeaderValue;
use lamina_base::tls;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::policy::TlsPolicy;

/// The field for what a client has presented, its own certificate first. None if an authority of the
/// policy has signed that itself, or there is no path any more.
pub(super) fn field(
    presented: &[CertificateDer<'static>],
    policy: &TlsPolicy,
) -> Option<HeaderValue> {
    let (own, others) = presented.split_first()?;
    let own = EndEntityCert::try_from(own).ok()?;
    let provider = tls::provider();
    let path = own.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &policy.authorities.as_ref()?.roots,
        others,
        UnixTime::now(),
        KeyUsage::client_auth(),
        None,
        None,
    );
    let path = path.ok()?;
    let mut list = sfv::ListSerializer::new();
    for certificate in path.intermediate_certificates() {
        let _no_parameters = list.bare_item(&certificate.der()[..]);
    }
    HeaderValue::from_str(&list.finish()?).ok()
}
