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
//!
//! Nodes have the same secrets if files hold them, or if somebody above this crate brings those of
//! each epoch ([`SharedTicketSecrets`]). Until those are there, a node seals by a secret of its own,
//! which is derived from that of the process ([`ProcessSecret`]): the process that takes the place of
//! this one gets that.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use parking_lot::RwLock;
use rustls::server::ProducesTickets;

use super::session::has_expired;
use crate::quic_identity::QuicIdentity;

/// The identity of a TLS policy: a digest of all that a session under it was checked by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TlsPolicyId(pub [u8; 32]);

/// The secrets that the keys of tickets are derived from: the first seals, all open. A shared one
/// for the current epoch seals before them.
#[derive(Clone)]
pub struct TicketSecrets {
    own: Vec<Vec<u8>>,
    shared: Option<Arc<SharedTicketSecrets>>,
}

/// A random secret of the process, which the process after it inherits. Others are derived from it.
pub struct ProcessSecret([u8; LEAST_SECRET]);

/// A span of time in which one key seals tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TicketEpoch {
    /// Its length in seconds.
    pub rotate: u64,
    /// How many of this length were before it since 1970.
    pub number: u64,
}

/// Secrets that nodes have agreed upon, each for one epoch.
#[derive(Default)]
pub struct SharedTicketSecrets {
    known: RwLock<BTreeMap<TicketEpoch, Vec<u8>>>,
    /// Grows with each change.
    version: AtomicU64,
}

impl TicketEpoch {
    /// The current one.
    pub fn now(rotate: Duration) -> Self {
        let rotate = rotate.as_secs().max(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            rotate,
            number: now.map_or(0, |now| now.as_secs() / rotate),
        }
    }

    /// The one with this number.
    fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// The one before, this one, and the one after it.
    pub fn neighbourhood(self) -> [Self; 3] {
        let numbers = [
            self.number.wrapping_sub(1),
            self.number,
            self.number.wrapping_add(1),
        ];
        numbers.map(|number| self.numbered(number))
    }
}

impl SharedTicketSecrets {
    pub fn has(&self, epoch: TicketEpoch) -> bool {
        self.known.read().contains_key(&epoch)
    }

    /// Takes the secret of an epoch, and forgets those that are of no use any more.
    pub fn put(&self, epoch: TicketEpoch, secret: Vec<u8>) {
        let mut known = self.known.write();
        let oldest = epoch.number.saturating_sub(MOST_EPOCHS);
        known.retain(|one, _| one.rotate != epoch.rotate || one.number >= oldest);
        known.insert(epoch, secret);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn get(&self, epoch: TicketEpoch) -> Option<Vec<u8>> {
        self.known.read().get(&epoch).cloned()
    }
}

/// The most earlier epochs whose shared secrets are kept.
const MOST_EPOCHS: u64 = 3;

/// The fewest octets of a secret.
pub const LEAST_SECRET: usize = 32;

const EPOCH_LEN: usize = 8;

/// What the secrets of listeners and those for other purposes are derived for.
const OF_LISTENER: &[u8] = b"lamina listener 1";
const OF_IDS: &[u8] = b"lamina quic id 1";

impl ProcessSecret {
    /// One that no other process has.
    pub fn random() -> Self {
        let mut secret = [0; LEAST_SECRET];
        // AWS-LC's generator ends the process rather than fail.
        let _ = rand::fill(&mut secret);
        Self(secret)
    }

    /// The one with these octets. None if it is not so long.
    pub fn of(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The secret of the listener that is configured with this address.
    pub(super) fn of_listener(&self, address: SocketAddr) -> TicketSecrets {
        let octets = self.derive(OF_LISTENER, address.to_string().as_bytes());
        TicketSecrets::of(vec![octets])
    }

    /// What connection ids of the process with this generation are made by.
    pub fn quic_identity(&self, generation: u8) -> QuicIdentity {
        QuicIdentity::new(generation, &self.derive(OF_IDS, b""))
    }

    /// Octets for a purpose of their own.
    fn derive(&self, purpose: &[u8], of: &[u8]) -> Vec<u8> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose).extract(&self.0);
        let mut octets = vec![0; LEAST_SECRET];
        let info = [of];
        let expanded = extracted.expand(&info, hkdf::HKDF_SHA256);
        // So many octets can be expanded: it is the length of the hash.
        let filled = expanded.and_then(|expanded| expanded.fill(&mut octets));
        debug_assert!(filled.is_ok());
        octets
    }
}

/// The longest life of a ticket in seconds (RFC 8446 §4.6.1).
const MOST_LIFETIME: u64 = 604_800;

/// What the derived keys are for (RFC 5869 §3.2).
const PURPOSE: &[u8] = b"lamina session ticket 1";

impl TicketSecrets {
    /// The first secret, which others are derived from.
    pub(super) fn first(&self) -> &[u8] {
        self.own.first().map_or(&[], Vec::as_slice)
    }

    /// These secrets, of which there is at least one, each with [`LEAST_SECRET`] octets or more.
    pub fn of(secrets: Vec<Vec<u8>>) -> Self {
        Self {
            own: secrets,
            shared: None,
        }
    }

    /// The same beside those that nodes agree upon.
    pub(super) fn beside(self, shared: &Arc<SharedTicketSecrets>) -> Self {
        Self {
            shared: Some(Arc::clone(shared)),
            ..self
        }
    }

    /// The own ones of `now` in place of these, beside the same shared ones. None if they are the same.
    pub(super) fn replaced_by(&self, now: Self) -> Option<Self> {
        let differ = self.own != now.own;
        differ.then(|| Self {
            own: now.own,
            shared: self.shared.clone(),
        })
    }

    /// Changes when shared secrets come.
    fn version(&self) -> u64 {
        let shared = self.shared.as_ref();
        shared.map_or(0, |shared| shared.version.load(Ordering::Acquire))
    }

    fn shared_for(&self, epoch: TicketEpoch) -> Option<Vec<u8>> {
        self.shared.as_ref()?.get(epoch)
    }
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecrets({})", self.own.len())
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
    /// That of the secrets which they were derived from.
    version: u64,
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
        TicketEpoch::now(self.rotate).number
    }

    /// Works with the keys of the current epoch.
    fn with_keys<T>(&self, work: impl FnOnce(&EpochKeys) -> Option<T>) -> Option<T> {
        let (epoch, version) = (self.epoch(), self.secrets.version());
        let is_current = |keys: &&EpochKeys| keys.epoch == epoch && keys.version == version;
        let known = self.keys.read();
        if let Some(keys) = known.as_ref().filter(is_current) {
            return work(keys);
        }
        drop(known);
        let mut known = self.keys.write();
        *known = self.derive_all(epoch);
        known.as_ref().and_then(work)
    }

    fn derive_all(&self, epoch: u64) -> Option<EpochKeys> {
        let version = self.secrets.version();
        let current = TicketEpoch::now(self.rotate).numbered(epoch);
        let mut open = Vec::new();
        for near in current.neighbourhood() {
            let shared = self.secrets.shared_for(near);
            for secret in shared.iter().chain(&self.secrets.own) {
                open.push((near.number, self.derive(secret, near.number)?));
            }
        }
        let shared = self.secrets.shared_for(current);
        let seal = shared.as_ref().or(self.secrets.own.first())?;
        Some(EpochKeys {
            epoch,
            version,
            seal: self.derive(seal, epoch)?,
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
                // A client whose certificate has expired since then may have another one by now: it
                // does a full handshake, in which it shows it.
                match client_certificate(plain).is_some_and(has_expired) {
                    true => None,
                    false => Some(plain.to_vec()),
                }
            })
        })
    }
}

/// The certificate of the client in a session, as rustls 0.23 writes one: name, version, cipher suite,
/// secret and a flag come before it. None if there is none. Where a session is not
/// understood, one whose certificate has expired is refused after its handshake
/// ([`TlsSession`](super::TlsSession)).
fn client_certificate(session: &[u8]) -> Option<&[u8]> {
    let (named, rest) = session.split_first()?;
    let rest = match named {
        1 => after_short(rest)?,
        _ => rest,
    };
    let rest = after_short(rest.get(4..)?)?;
    match rest.get(1)? {
        // The length of all certificates, and that of the first.
        1 => rest.get(5..).and_then(|chain| {
            let (length, certificates) = chain.split_first_chunk::<3>()?;
            let [high, middle, low] = *length;
            certificates.get(..u32::from_be_bytes([0, high, middle, low]) as usize)
        }),
        _ => None,
    }
}

/// What follows a text whose length is one octet.
fn after_short(octets: &[u8]) -> Option<&[u8]> {
    let (length, rest) = octets.split_first()?;
    rest.get(usize::from(*length)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_listener_has_the_same_secret_in_the_next_process_and_no_other_one_has() {
        let secret = ProcessSecret::random();
        let next = ProcessSecret::of(secret.octets()).unwrap();
        let of = |secret: &ProcessSecret, port: u16| {
            let all = secret.of_listener(SocketAddr::from(([127, 0, 0, 1], port)));
            all.first().to_vec()
        };
        assert_eq!(of(&secret, 1), of(&next, 1));
        assert_ne!(of(&secret, 1), of(&secret, 2));
        assert_ne!(of(&secret, 1), of(&ProcessSecret::random(), 1));
        assert!(ProcessSecret::of(b"short").is_none());
    }

    fn ticketer(secrets: &[&[u8]], policy: u8) -> PolicyTicketer {
        let secrets = secrets.iter().map(|secret| secret.to_vec()).collect();
        PolicyTicketer::new(TicketSecrets::of(secrets), TlsPolicyId([policy; 32]), DAY)
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
