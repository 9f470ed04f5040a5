//! Hides what is put where others can read: sealed by AES-256-GCM under a key that follows from
//! `acme.seal_key`, and bound to its place, so that nothing can be put in the place of another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;

use super::AcmeStorageError;

/// The first octet of what is sealed in this way.
const FORM: u8 = 1;

/// The octets of a nonce, which stand after the form.
const NONCE: usize = 12;

/// Tells this use of the secret from all others.
const PURPOSE: &[u8] = b"lamina acme storage 1";

/// Seals and opens records.
pub struct RecordSeal(RandomizedNonceKey);

impl RecordSeal {
    /// # Errors
    /// Never in practice: the key has the length that the algorithm wants.
    pub fn new(secret: &[u8]) -> Result<Self, AcmeStorageError> {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref());
        Ok(Self(key.map_err(|_| {
            AcmeStorageError::Unusable("the seal can't be made".to_owned())
        })?))
    }

    /// Seals a record for this place.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn seal(&self, place: &str, mut record: Vec<u8>) -> Result<Vec<u8>, AcmeStorageError> {
        let sealed = self
            .0
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut record);
        let nonce = sealed
            .map_err(|_| AcmeStorageError::Unusable("a record can't be sealed".to_owned()))?;
        let nonce: &[u8; NONCE] = nonce.as_ref();
        Ok([&[FORM], &nonce[..], &record].concat())
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// If it was sealed by another secret, for another place, or not at all.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, AcmeStorageError> {
        let foreign = || {
            let reason = "it is not sealed by this `seal_key`";
            AcmeStorageError::Corrupt(place.to_owned(), reason.to_owned())
        };
        let rest = sealed.strip_prefix(&[FORM]).ok_or_else(foreign)?;
        let (nonce, record) = rest.split_at_checked(NONCE).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let mut record = record.to_vec();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut record);
        Ok(opened.map_err(|_| foreign())?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_and_place_open_a_record() {
        let seal = RecordSeal::new(b"0123456789abcdef").unwrap();
        let sealed = seal.seal("certificates/a", b"a key".to_vec()).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"a key"));
        assert_eq!(seal.open("certificates/a", &sealed).unwrap(), b"a key");
        assert!(seal.open("certificates/b", &sealed).is_err());
        let other = RecordSeal::new(b"another secret 1").unwrap();
        assert!(other.open("certificates/a", &sealed).is_err());
        for bent in [&[][..], &[FORM], b"{}", &sealed[..20]] {
            assert!(seal.open("certificates/a", bent).is_err());
        }
        let again = seal.seal("certificates/a", b"a key".to_vec()).unwrap();
        assert_ne!(again, sealed);
    }
}
