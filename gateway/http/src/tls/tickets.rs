//! Session tickets that are bound to a TLS policy.
//!
//! rustls resumes a session if the name, the cipher suite and the ticket are right; it does not
//! ask whether the session was made under the rules that hold now. A session without a client
//! certificate would so be resumed where one is required. Here the key that seals a ticket is
//! derived from the secret, the epoch and the policy's identity, so that a ticket of one policy
//! can't be opened by another one, on no node and after no reload.
//!
//! A ticket is the epoch (8 octets), a nonce (12), and the sealed session. One epoch seals; it and
//! its two neighbours open, so that neither a rotation nor clocks that differ cut anybody off.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use parking_lot::RwLock;
use rustls::server::ProducesTickets;

/// The identity of a TLS policy: a digest of all that a session under it was checked by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TlsPolicyId(pub [u8; 32]);

/// The secrets that the keys of tickets are derived from: the first seals, all open.
#[derive(Clone)]
pub struct TicketSecrets(Vec<Vec<u8>>);

/// The fewest octets of a secret.
pub const LEAST_SECRET: usize = 32;

const EPOCH_LEN: usize = 8;

/// The longest life of a ticket in seconds (RFC 8446 §4.6.1).
const MOST_LIFETIME: u64 = 604_800;

/// What the derived keys are for (RFC 5869 §3.2).
const PURPOSE: &[u8] = b"lamina session ticket 1";

impl TicketSecrets {
    /// A random secret, which no other process has.
    pub fn random() -> Self {
        let mut secret = vec![0; LEAST_SECRET];
        // AWS-LC's generator ends the process rather than fail.
        let _ = rand::fill(&mut secret);
        Self(vec![secret])
    }

    /// The first secret, which others are derived from.
    pub(super) fn first(&self) -> &[u8] {
        self.0.first().map_or(&[], Vec::as_slice)
    }

    /// These secrets, of which there is at least one, each with [`LEAST_SECRET`] octets or more.
    pub fn shared(secrets: Vec<Vec<u8>>) -> Self {
        Self(secrets)
    }
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecrets({})", self.0.len())
    }
}

/// Seals and opens the tickets of one policy.
pub struct PolicyTicketer {
    secrets: TicketSecrets,
    policy: TlsPolicyId,
    rotate: Duration,
    /// The keys of the last epoch that was asked for.
    keys: RwLock<Option<EpochKeys>>,
}

/// The keys of an epoch and its neighbours, for each secret.
struct EpochKeys {
    epoch: u64,
    seal: LessSafeKey,
    open: Vec<(u64, LessSafeKey)>,
}

impl PolicyTicketer {
    pub fn new(secrets: TicketSecrets, policy: TlsPolicyId, rotate: Duration) -> Self {
        Self {
            secrets,
            policy,
            rotate: rotate.max(Duration::from_secs(1)),
            keys: RwLock::new(None),
        }
    }

    fn epoch(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs() / self.rotate.as_secs().max(1))
    }

    /// Works with the keys of the current epoch.
    fn with_keys<T>(&self, work: impl FnOnce(&EpochKeys) -> Option<T>) -> Option<T> {
        let epoch = self.epoch();
        let known = self.keys.read();
        if let Some(keys) = known.as_ref().filter(|keys| keys.epoch == epoch) {
            return work(keys);
        }
        drop(known);
        let mut known = self.keys.write();
        *known = self.derive_all(epoch);
        known.as_ref().and_then(work)
    }

    fn derive_all(&self, epoch: u64) -> Option<EpochKeys> {
        let mut open = Vec::new();
        for secret in &self.secrets.0 {
            for near in [epoch, epoch.wrapping_sub(1), epoch.wrapping_add(1)] {
                open.push((near, self.derive(secret, near)?));
            }
        }
        Some(EpochKeys {
            epoch,
            seal: self.derive(self.secrets.0.first()?, epoch)?,
            open,
        })
    }

    fn derive(&self, secret: &[u8], epoch: u64) -> Option<LessSafeKey> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE).extract(secret);
        let epoch = epoch.to_be_bytes();
        let info = [&epoch[..], &self.policy.0];
        let key = extracted.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

impl fmt::Debug for PolicyTicketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyTicketer").finish_non_exhaustive()
    }
}

impl ProducesTickets for PolicyTicketer {
    fn enabled(&self) -> bool {
        true
    }

    /// An epoch may end at once after a ticket was sealed; its neighbour is opened for another one.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotate.as_secs().min(MOST_LIFETIME)).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with_keys(|keys| {
            let mut nonce = [0; NONCE_LEN];
            rand::fill(&mut nonce).ok()?;
            let mut sealed = plain.to_vec();
            let epoch = keys.epoch.to_be_bytes();
            let (unique, bound) = (Nonce::assume_unique_for_key(nonce), Aad::from(epoch));
            keys.seal
                .seal_in_place_append_tag(unique, bound, &mut sealed)
                .ok()?;
            Some([&epoch[..], &nonce, &sealed].concat())
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let of = u64::from_be_bytes(*epoch);
        self.with_keys(|keys| {
            let fitting = keys.open.iter().filter(|(epoch, _)| *epoch == of);
            fitting.into_iter().find_map(|(_, key)| {
                let mut sealed = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let plain = key
                    .open_in_place(nonce, Aad::from(*epoch), &mut sealed)
                    .ok()?;
                Some(plain.to_vec())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn ticketer(secrets: &[&[u8]], policy: u8) -> PolicyTicketer {
        let secrets = secrets.iter().map(|secret| secret.to_vec()).collect();
        PolicyTicketer::new(
            TicketSecrets::shared(secrets),
            TlsPolicyId([policy; 32]),
            DAY,
        )
    }

    #[test]
    fn a_ticket_is_opened_by_its_own_policy_on_every_node_and_by_no_other() {
        let (one, two) = ([1; 32], [2; 32]);
        let ticket = ticketer(&[&one], 7).encrypt(b"session").unwrap();
        let opened = |by: &PolicyTicketer| by.decrypt(&ticket);
        assert_eq!(opened(&ticketer(&[&one], 7)).unwrap(), b"session");
        // A secret that was replaced still opens.
        assert_eq!(opened(&ticketer(&[&two, &one], 7)).unwrap(), b"session");
        assert_eq!(opened(&ticketer(&[&one], 8)), None);
        assert_eq!(opened(&ticketer(&[&two], 7)), None);
    }

    #[test]
    fn what_was_changed_or_cut_is_not_opened() {
        let ticketer = ticketer(&[&[1; 32]], 7);
        let ticket = ticketer.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "octet {at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "length {at}");
        }
    }

    #[test]
    fn the_epoch_before_and_the_one_after_are_opened_and_no_other() {
        let ticketer = ticketer(&[&[1; 32]], 7);
        let epoch = ticketer.epoch();
        for (other, opens) in [
            (epoch - 2, false),
            (epoch - 1, true),
            (epoch + 1, true),
            (epoch + 2, false),
        ] {
            *ticketer.keys.write() = ticketer.derive_all(other);
            let keys = ticketer.keys.read();
            let mut sealed = b"session".to_vec();
            let nonce = [3; NONCE_LEN];
            let bound = other.to_be_bytes();
            let seal = &keys.as_ref().unwrap().seal;
            let unique = Nonce::assume_unique_for_key(nonce);
            seal.seal_in_place_append_tag(unique, Aad::from(bound), &mut sealed)
                .unwrap();
            drop(keys);
            let ticket = [&bound[..], &nonce, &sealed].concat();
            assert_eq!(ticketer.decrypt(&ticket).is_some(), opens, "{other}");
        }
    }
}
