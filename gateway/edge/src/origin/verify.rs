//! How the certificate of an origin is verified beyond what rustls does.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls_report::ShownCertificate;

/// The SHA-256 of a public key in the form that certificates have it (SPKI, RFC 7469 §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PublicKeyPin([u8; 32]);

impl PublicKeyPin {
    /// Reads a pin in base64. None if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let octets = STANDARD.decode(text).ok()?;
        octets.try_into().ok().map(Self)
    }

    /// The pin of a certificate's key. None if the certificate can't be read.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let digest = digest::digest(&digest::SHA256, parsed.public_key().raw);
        digest.as_ref().try_into().ok().map(Self)
    }
}

/// Accepts only certificates that another verifier accepts and whose own key is pinned, if there
/// are pins. Keys of authorities do not count: anybody may add their certificates to a chain. Notes
/// what it is shown.
#[derive(Debug)]
pub(super) struct OriginVerifier {
    verified: Arc<dyn ServerCertVerifier>,
    pins: Vec<PublicKeyPin>,
    shown: Arc<ShownCertificate>,
}

impl OriginVerifier {
    pub(super) fn new(
        verified: Arc<dyn ServerCertVerifier>,
        pins: Vec<PublicKeyPin>,
        shown: Arc<ShownCertificate>,
    ) -> Self {
        Self {
            verified,
            pins,
            shown,
        }
    }
}

impl ServerCertVerifier for OriginVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.shown.note(end_entity);
        let verified = self.verified.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let pinned = || PublicKeyPin::of(end_entity).is_some_and(|pin| self.pins.contains(&pin));
        match self.pins.is_empty() || pinned() {
            true => Ok(verified),
            false => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verified.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verified.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verified.supported_verify_schemes()
    }
}

/// Accepts every certificate, where `verify: off` says so. The origin must still have its key.
#[derive(Debug)]
pub(super) struct UnverifiedOrigin(Arc<CryptoProvider>);

impl UnverifiedOrigin {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for UnverifiedOrigin {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_32_octets_in_base64() {
        let text = STANDARD.encode([7; 32]);
        assert_eq!(PublicKeyPin::parse(&text), Some(PublicKeyPin([7; 32])));
        let short = STANDARD.encode([7; 31]);
        for wrong in ["", "sha256/AAAA", &text[1..], &short] {
            assert_eq!(PublicKeyPin::parse(wrong), None, "{wrong:?}");
        }
    }
}
