//! The seal of an event: proof that a node with the same `seal_key` published exactly these bytes.
//!
//! It is the first 16 bytes of HMAC-SHA256 over the whole msgpack of the event up to the seal,
//! which stands at its very end: outer map, `lamina` and all that is in them. Decision: the bytes
//! themselves are sealed, not a canonical form of their meaning. So there is no second form that
//! could disagree with the first, no part of one event can be put into another, and a field that
//! only newer nodes know is sealed as well.
//!
//! Decision: the key is derived from the secret with a label of its own, so that the seal of an
//! event is never the seal of a second-tier record, which may use the same secret.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a seal.
pub const SEAL: usize = 16;

/// The label with which the key of events is derived; part of the format.
const LABEL: &[u8] = b"lamina bus event 1";
/// How the msgpack of a sealed event ends, before the seal: the field's name and its length.
const FIELD: &[u8] = b"\xa4seal\xc4\x10";

/// Seals events, and checks seals.
#[derive(Clone)]
pub struct SealKeys {
    own: Hmac<Sha256>,
    /// While nodes change to another key: seals made with it are valid as well, and none is made
    /// with it.
    accepted: Option<Hmac<Sha256>>,
}

/// The result of checking a seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealCheck {
    /// A node with the same key published exactly these bytes.
    Holds,
    /// There is a seal, but it is not valid for these bytes.
    Broken,
    /// There is no seal.
    Absent,
}

impl SealKeys {
    /// Makes the keys from the secret of all nodes, and from one more that is accepted.
    pub fn new(own: &[u8], accepted: Option<&[u8]>) -> Self {
        Self {
            own: derived(own),
            accepted: accepted.map(derived),
        }
    }

    /// Writes the seal over the last [`SEAL`] bytes of an event's msgpack.
    pub(super) fn seal(&self, packed: &mut [u8]) {
        if let Some((sealed, seal)) = packed.split_last_chunk_mut::<SEAL>() {
            let whole = self.own.clone().chain_update(sealed).finalize();
            seal.copy_from_slice(&whole.into_bytes()[..SEAL]);
        }
    }

    /// Checks the seal of an event's msgpack. Takes the same time however much of a wrong seal is
    /// right.
    pub(super) fn check(&self, packed: &[u8]) -> SealCheck {
        let Some((sealed, seal)) = packed.split_last_chunk::<SEAL>() else {
            return SealCheck::Absent;
        };
        if !sealed.ends_with(FIELD) {
            return SealCheck::Absent;
        }
        let keys = [Some(&self.own), self.accepted.as_ref()];
        let holds = |key: &Hmac<Sha256>| {
            let whole = key.clone().chain_update(sealed);
            whole.verify_truncated_left(seal).is_ok()
        };
        match keys.into_iter().flatten().any(holds) {
            true => SealCheck::Holds,
            false => SealCheck::Broken,
        }
    }
}

fn derived(secret: &[u8]) -> Hmac<Sha256> {
    let key = keyed(secret).chain_update(LABEL).finalize().into_bytes();
    keyed(&key)
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKeys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(keys: &SealKeys, content: &[u8]) -> Vec<u8> {
        let mut packed = [content, FIELD, &[0; SEAL]].concat();
        keys.seal(&mut packed);
        packed
    }

    #[test]
    fn a_seal_holds_for_its_bytes_and_its_key_alone() {
        let keys = SealKeys::new(b"the key of all nodes", None);
        let packed = sealed(&keys, b"content");
        assert_eq!(keys.check(&packed), SealCheck::Holds);
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 1;
            assert_ne!(keys.check(&damaged), SealCheck::Holds, "byte {at}");
        }
        for end in 0..packed.len() {
            assert_ne!(keys.check(&packed[..end]), SealCheck::Holds, "up to {end}");
        }
        let doubled = [&packed[..], FIELD, &packed[packed.len() - SEAL..]].concat();
        assert_eq!(keys.check(&doubled), SealCheck::Broken);
        assert_eq!(keys.check(b"content"), SealCheck::Absent);
        let other = SealKeys::new(b"the key of somebody else", None);
        assert_eq!(other.check(&packed), SealCheck::Broken);
    }

    #[test]
    fn a_second_key_is_accepted_and_seals_nothing() {
        let (old, new) = (&b"the key until today"[..], &b"the key from today on"[..]);
        let both = SealKeys::new(new, Some(old));
        let packed = sealed(&SealKeys::new(old, None), b"content");
        assert_eq!(both.check(&packed), SealCheck::Holds);
        let packed = sealed(&both, b"content");
        let check = |key| SealKeys::new(key, None).check(&packed);
        assert_eq!(
            (check(new), check(old)),
            (SealCheck::Holds, SealCheck::Broken)
        );
    }

    /// The same secret also seals records of the second tier.
    #[test]
    fn the_seal_of_an_event_is_not_made_with_the_secret_itself() {
        let secret = b"the key of all nodes";
        let packed = sealed(&SealKeys::new(secret, None), b"content");
        let (content, seal) = packed.split_last_chunk::<SEAL>().unwrap();
        let direct = keyed(secret).chain_update(content).finalize().into_bytes();
        assert_ne!(&direct[..SEAL], seal);
    }
}
