//! The seal binds a record to its key and, with a secret, to those who know the secret.
//!
//! It is the first 16 bytes of HMAC-SHA256 over the key's length (8 bytes, big end first), the key
//! and the record. The length separates the two: without it, a key that ends like a record could be
//! split differently, and its seal would also fit a shorter key. Where no secret is configured, the
//! word below replaces it; that keeps out damaged and swapped records, but not forged ones. The
//! HMAC's key is not the secret itself: it is derived for this purpose ([`keyed`]), so a seal for
//! one purpose is never valid for another.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a seal.
pub const SEAL: usize = 16;

/// Used in place of a secret if none is configured; part of the format.
const PUBLIC: &[u8] = b"lamina record";
/// The purpose of this seal; part of the format.
const PURPOSE: &str = "lamina record 2";

/// Makes and compares seals.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// Makes seals with a secret that all nodes of a store share.
    pub fn new(secret: &[u8]) -> Self {
        Self(keyed(secret, PURPOSE))
    }

    /// Makes seals without a secret.
    pub fn public() -> Self {
        Self::new(PUBLIC)
    }

    pub(crate) fn over(&self, key: &[u8], record: &[u8]) -> [u8; SEAL] {
        let whole = self.begin(key, record).finalize().into_bytes();
        std::array::from_fn(|i| whole[i])
    }

    /// Compares in a time that does not reveal how much of `seal` is right.
    pub(crate) fn holds(&self, key: &[u8], record: &[u8], seal: &[u8]) -> bool {
        seal.len() == SEAL && self.begin(key, record).verify_truncated_left(seal).is_ok()
    }

    fn begin(&self, key: &[u8], record: &[u8]) -> Hmac<Sha256> {
        let length = (key.len() as u64).to_be_bytes();
        let begun = self.0.clone().chain_update(length);
        begun.chain_update(key).chain_update(record)
    }
}

/// An HMAC whose key is derived from a secret for one purpose: it is the HMAC-SHA256 of the
/// purpose's name under the secret.
pub(crate) fn keyed(secret: &[u8], purpose: &str) -> Hmac<Sha256> {
    let of = |key: &[u8]| -> Hmac<Sha256> {
        Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
    };
    let derived = of(secret).chain_update(purpose).finalize().into_bytes();
    of(&derived)
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}
