//! Keys that tokens are signed with (RFC 7517), and the signatures (RFC 7515) that they verify.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::config::JwtAlgorithm;

/// The most keys of a set that are looked at.
const MOST_KEYS: usize = 64;
/// The least octets of a modulus: 2048 bits (RFC 7518 §3.3).
const LEAST_MODULUS: usize = 256;

/// One key.
pub struct PublicKey {
    pub id: Option<String>,
    /// The one algorithm that it is for, whatever a token says.
    pub algorithm: JwtAlgorithm,
    material: KeyMaterial,
}

enum KeyMaterial {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The point in its uncompressed form.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct WrittenKeySet {
    keys: Vec<serde_json::Value>,
}

/// A key as it is written.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that are of use here; others are left out.
///
/// # Errors
/// If the text is no set, or none of its keys can be used.
pub fn parse(text: &[u8]) -> Result<Vec<PublicKey>, String> {
    let set: WrittenKeySet =
        serde_json::from_slice(text).map_err(|error| format!("this is no JWK set: {error}"))?;
    let keys = set.keys.into_iter().take(MOST_KEYS);
    let keys: Vec<_> = keys.filter_map(PublicKey::of).collect();
    match keys.is_empty() {
        true => Err("no key of RS256, ES256 or EdDSA is in this JWK set".to_owned()),
        false => Ok(keys),
    }
}

impl PublicKey {
    fn of(value: serde_json::Value) -> Option<Self> {
        let written: WrittenKey = serde_json::from_value(value).ok()?;
        if written.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let octets = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let (algorithm, material) = match (&*written.kty, written.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (octets(&written.n)?, octets(&written.e)?);
                if modulus.len() < LEAST_MODULUS {
                    return None;
                }
                (JwtAlgorithm::RS256, KeyMaterial::Rsa { modulus, exponent })
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (octets(&written.x)?, octets(&written.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat();
                (JwtAlgorithm::ES256, KeyMaterial::P256(point))
            }
            ("OKP", Some("Ed25519")) => {
                let point = octets(&written.x).filter(|point| point.len() == 32)?;
                (JwtAlgorithm::EdDSA, KeyMaterial::Ed25519(point))
            }
            _ => return None,
        };
        let is_for_it = |name: &String| name == algorithm.as_str();
        written.alg.as_ref().is_none_or(is_for_it).then_some(Self {
            id: written.kid,
            algorithm,
            material,
        })
    }

    /// Whether this is the key's signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            KeyMaterial::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                let verified = key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature);
                verified.is_ok()
            }
            KeyMaterial::P256(point) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            KeyMaterial::Ed25519(point) => {
                let key = UnparsedPublicKey::new(&ED25519, point);
                key.verify(message, signature).is_ok()
            }
        }
    }
}
