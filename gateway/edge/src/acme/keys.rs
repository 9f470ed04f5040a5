//! Private keys, requests for certificates, and the certificates that answer challenges.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use lamina_base::tls;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::config::AcmeKeyKind;

/// Why there is no key, request or certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key or a request for a certificate can't be made: {0}")]
pub struct KeyMakingError(String);

impl From<rcgen::Error> for KeyMakingError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// The kind of one certificate's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyAlgorithm {
    EcdsaP256,
    Rsa2048,
}

impl KeyAlgorithm {
    /// The kinds that the configuration asks for.
    pub fn all_of(kind: AcmeKeyKind) -> &'static [Self] {
        match kind {
            AcmeKeyKind::EcdsaP256 => &[Self::EcdsaP256],
            AcmeKeyKind::Rsa2048 => &[Self::Rsa2048],
            AcmeKeyKind::Both => &[Self::EcdsaP256, Self::Rsa2048],
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}

/// A new private key, as PEM. Takes up to a second for RSA.
///
/// # Errors
/// If there are no random numbers.
pub fn new_key(algorithm: KeyAlgorithm) -> Result<String, KeyMakingError> {
    let key = match algorithm {
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    };
    Ok(key.serialize_pem())
}

/// The request for a certificate for these names, as DER. The subject stays empty: names stand in
/// the subjectAltName alone.
///
/// # Errors
/// If the key or a name can't be used.
pub fn request(names: &[String], key: &str) -> Result<Vec<u8>, KeyMakingError> {
    let mut wanted = CertificateParams::new(names)?;
    wanted.distinguished_name = DistinguishedName::new();
    let request = wanted.serialize_request(&KeyPair::from_pem(key)?)?;
    Ok(request.der().to_vec())
}

/// The certificate for the handshake of a challenge (RFC 8737 §3).
///
/// # Errors
/// If the name can't be used.
pub fn challenge_certificate(
    name: &str,
    key_authorization: &str,
) -> Result<Arc<CertifiedKey>, KeyMakingError> {
    let digest = digest(&SHA256, key_authorization.as_bytes());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut shown = CertificateParams::new([name.to_owned()])?;
    shown.distinguished_name = DistinguishedName::new();
    shown.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let certificate = shown.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = tls::provider().key_provider.load_private_key(der);
    let signing = signing.map_err(|error| KeyMakingError(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(
        vec![certificate.der().clone()],
        signing,
    )))
}
