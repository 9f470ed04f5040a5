//! Certificates that are revoked: by the account that has obtained them, or by the word of whoever has
//! their key (RFC 8555 §7.6), which is what is left when the account is lost.
//!
//! The account comes first: an issuer may take a revocation by the key for the news that others have
//! the key. The client library signs for accounts alone, so the other request is made here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use instant_acme::{BodyWrapper, HttpClient, Problem, RevocationRequest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chain;
use super::failure::AcmeFailure;
use super::issuer::AcmeIssuer;
use super::records::StoredCertificate;
use super::storage::AcmeStorage;
use super::transport::AcmeTransport;

/// The form of signed requests (RFC 8555 §6.2).
const SIGNED: &str = "application/jose+json";

/// How often a request is repeated whose nonce the issuer does not know.
const MOST_NONCES: usize = 3;

/// What is needed of an issuer's directory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevocationPlaces {
    new_nonce: String,
    revoke_cert: Option<String>,
}

/// The key of a certificate, by which requests are signed.
enum CertificateKey {
    EcdsaP256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Has an issuer revoke a certificate. One that is revoked already counts as revoked.
///
/// # Errors
/// If the issuer refuses it both ways, or can't be reached.
pub async fn revoke(
    issuer: &AcmeIssuer,
    storage: &dyn AcmeStorage,
    stored: &StoredCertificate,
) -> Result<(), AcmeFailure> {
    let Some(certificate) = chain::first(&stored.chain) else {
        return Ok(());
    };
    let revoked = match by_account(issuer, storage, &certificate).await {
        Err(failure) if failure.may_be_about_the_account() => {
            let issuer_name = &*issuer.name;
            tracing::warn!(
                issuer = issuer_name,
                error = %failure,
                "the account can't revoke a certificate; its key does"
            );
            by_key(issuer, &certificate, &stored.key).await
        }
        other => other,
    };
    match revoked {
        Err(failure) if failure.problem() == Some("alreadyRevoked") => Ok(()),
        other => other,
    }
}

async fn by_account(
    issuer: &AcmeIssuer,
    storage: &dyn AcmeStorage,
    certificate: &CertificateDer<'_>,
) -> Result<(), AcmeFailure> {
    let account = issuer.account(storage).await?;
    let request = RevocationRequest {
        certificate,
        reason: None,
    };
    Ok(account.revoke(&request).await?)
}

async fn by_key(
    issuer: &AcmeIssuer,
    certificate: &CertificateDer<'_>,
    key: &str,
) -> Result<(), AcmeFailure> {
    let key = CertificateKey::of_pem(key)?;
    let transport = &issuer.transport;
    let directory = asked(transport, Method::GET, &issuer.directory, Vec::new()).await?;
    let places: RevocationPlaces =
        serde_json::from_slice(directory.body()).map_err(instant_acme::Error::from)?;
    let at = places.revoke_cert.ok_or(instant_acme::Error::Str(
        "the directory of the issuer has no revokeCert",
    ))?;
    let payload = json!({ "certificate": encoded(certificate) });
    let mut nonce = nonce_of(&asked(transport, Method::HEAD, &places.new_nonce, Vec::new()).await?);
    let mut left = MOST_NONCES;
    loop {
        let signed = key.signed(&payload, &at, nonce.as_deref().unwrap_or_default())?;
        let answer = asked(transport, Method::POST, &at, signed.to_string().into()).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        let problem: Problem =
            serde_json::from_slice(answer.body()).map_err(instant_acme::Error::from)?;
        let failure = AcmeFailure::Issuer(instant_acme::Error::Api(problem));
        left -= 1;
        if failure.problem() != Some("badNonce") || left == 0 {
            return Err(failure);
        }
        nonce = nonce_of(&answer);
    }
}

/// The answer to a request, with its content.
async fn asked(
    transport: &AcmeTransport,
    method: Method,
    url: &str,
    content: Vec<u8>,
) -> Result<Response<Bytes>, AcmeFailure> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(CONTENT_TYPE, SIGNED)
        .body(BodyWrapper::from(content))
        .map_err(instant_acme::Error::from)?;
    let mut answer = transport.request(request).await?;
    let content = answer.body.into_bytes().await;
    let content = content.map_err(instant_acme::Error::Other)?;
    Ok(Response::from_parts(answer.parts, content))
}

fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    let nonce = answer.headers().get("replay-nonce")?;
    Some(nonce.to_str().ok()?.to_owned())
}

fn encoded(octets: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(octets)
}

impl CertificateKey {
    fn of_pem(key: &str) -> Result<Self, AcmeFailure> {
        let unusable = |reason: String| AcmeFailure::CertificateKey(reason);
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes());
        let der = der.map_err(|error| unusable(error.to_string()))?;
        let der = der.secret_pkcs8_der();
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(Self::EcdsaP256(key));
        }
        let key = RsaKeyPair::from_pkcs8(der);
        key.map(Self::Rsa)
            .map_err(|error| unusable(error.to_string()))
    }

    /// The name of the algorithm (RFC 7518 §3.1).
    fn algorithm(&self) -> &'static str {
        match self {
            Self::EcdsaP256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public key (RFC 7518 §6).
    fn public(&self) -> Value {
        match self {
            Self::EcdsaP256(key) => {
                // A point as SEC 1 writes it: a mark, and two coordinates.
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"crv": "P-256", "kty": "EC", "x": encoded(x), "y": encoded(y)})
            }
            Self::Rsa(key) => {
                let key = key.public_key();
                let modulus = key.modulus().big_endian_without_leading_zero();
                let exponent = key.exponent().big_endian_without_leading_zero();
                json!({"e": encoded(exponent), "kty": "RSA", "n": encoded(modulus)})
            }
        }
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let random = SystemRandom::new();
        match self {
            Self::EcdsaP256(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }

    /// A request that is signed by the key (RFC 8555 §6.2).
    fn signed(&self, payload: &Value, url: &str, nonce: &str) -> Result<Value, AcmeFailure> {
        let head = json!({
            "alg": self.algorithm(),
            "jwk": self.public(),
            "nonce": nonce,
            "url": url,
        });
        let (head, payload) = (encoded(head.to_string()), encoded(payload.to_string()));
        let signature = self.signature(format!("{head}.{payload}").as_bytes());
        let signature =
            signature.map_err(|error| AcmeFailure::CertificateKey(error.to_string()))?;
        Ok(json!({
            "protected": head,
            "payload": payload,
            "signature": encoded(signature),
        }))
    }
}
