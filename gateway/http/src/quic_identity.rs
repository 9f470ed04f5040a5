//! Connection ids, and which process they belong to.
//!
//! | Octet | |
//! |---|---|
//! | 0 | the worker |
//! | 1 | the generation of the process: that of its predecessor and one more |
//! | 2 to 5 | random |
//! | 6, 7 | by which ids of ours are told from those that clients choose for their first packets |
//!
//! A process that has taken the place of another one so knows which datagrams are still that one's.

use aws_lc_rs::{hmac, rand};
use quinn::{ConnectionId, ConnectionIdGenerator};
use std::sync::Arc;
use std::time::Duration;

/// Octets of a connection id.
pub(crate) const ID_LENGTH: usize = 8;

/// Those that the last ones are derived from.
const SIGNED: usize = 6;

/// What connection ids of a process are made by.
pub struct QuicIdentity {
    generation: u8,
    key: hmac::Key,
}

impl QuicIdentity {
    /// That of the process with this generation. `secret` is common to those that follow each other.
    pub fn new(generation: u8, secret: &[u8]) -> Self {
        Self {
            generation,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation
    }

    fn made(&self, worker: u8) -> [u8; ID_LENGTH] {
        let mut id = [0; ID_LENGTH];
        // AWS-LC's generator ends the process rather than fail.
        let _ = rand::fill(&mut id);
        (id[0], id[1]) = (worker, self.generation);
        self.sign(&mut id);
        id
    }

    fn sign(&self, id: &mut [u8; ID_LENGTH]) {
        let tag = hmac::sign(&self.key, &id[..SIGNED]);
        id[SIGNED..].copy_from_slice(&tag.as_ref()[..ID_LENGTH - SIGNED]);
    }

    /// Whether it was made here, or by a process with the same secret.
    fn is_ours(&self, id: &[u8; ID_LENGTH]) -> bool {
        let mut again = *id;
        self.sign(&mut again);
        again == *id
    }

    /// The generation of the process whose connection a datagram belongs to, if `is_earlier` says
    /// that it is one that still has some. None: it is for this process, or begins a connection.
    pub(crate) fn earlier(&self, datagram: &[u8], is_earlier: impl Fn(u8) -> bool) -> Option<u8> {
        let first = *datagram.first()?;
        if first & LONG_HEADER == 0 {
            // Clients that know no id of ours yet send none of these.
            return Some(*datagram.get(2)?).filter(|generation| is_earlier(*generation));
        }
        let id = datagram.get(6..6 + ID_LENGTH)?.first_chunk::<ID_LENGTH>()?;
        let has_our_length = usize::from(*datagram.get(5)?) == ID_LENGTH;
        if !has_our_length || !is_earlier(id[1]) || !self.is_ours(id) {
            return None;
        }
        // With a token it may be the answer to a Retry, whose id was ours and whose connection
        // begins only now.
        let begins = first & PACKET_KIND == INITIAL && has_token(datagram);
        (!begins).then_some(id[1])
    }
}

const LONG_HEADER: u8 = 0x80;
const PACKET_KIND: u8 = 0x30;
const INITIAL: u8 = 0x00;

/// Whether an Initial packet, with an id of ours, has a token (RFC 9000 §17.2.2).
fn has_token(datagram: &[u8]) -> bool {
    let at = 6 + ID_LENGTH;
    let of_client = datagram.get(at).copied().map_or(0, usize::from);
    datagram
        .get(at + 1 + of_client)
        .is_some_and(|length| *length != 0)
}

impl Default for QuicIdentity {
    fn default() -> Self {
        let mut secret = [0; 32];
        // AWS-LC's generator ends the process rather than fail.
        let _ = rand::fill(&mut secret);
        Self::new(0, &secret)
    }
}

/// Makes the ids of one worker.
pub(crate) struct WorkerIds {
    pub(crate) worker: u8,
    pub(crate) identity: Arc<QuicIdentity>,
}

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.identity.made(self.worker))
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(kind: u8, id: &[u8], token: &[u8]) -> Vec<u8> {
        let mut packet = vec![LONG_HEADER | 0x40 | kind, 0, 0, 0, 1, id.len() as u8];
        packet.extend(id);
        packet.extend([3, 9, 9, 9, token.len() as u8]);
        packet.extend(token);
        packet
    }

    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x40], id, &[7; 20]].concat()
    }

    #[test]
    fn datagrams_of_earlier_processes_are_told_from_first_packets_of_clients() {
        let (old, new) = (
            QuicIdentity::new(4, b"secret"),
            QuicIdentity::new(5, b"secret"),
        );
        let of = |datagram: &[u8]| new.earlier(datagram, |generation| generation == 4);
        let (theirs, ours) = (old.made(1), new.made(1));
        const HANDSHAKE: u8 = 0x20;
        for (datagram, expected) in [
            (short(&theirs), Some(4)),
            (short(&ours), None),
            (long(HANDSHAKE, &theirs, b""), Some(4)),
            (long(HANDSHAKE, &ours, b""), None),
            (long(INITIAL, &theirs, b""), Some(4)),
            (long(INITIAL, &theirs, b"a token"), None),
            // What a client chooses may look alike.
            (long(INITIAL, &[1, 4, 0, 0, 0, 0, 0, 0], b""), None),
            (long(INITIAL, &[&theirs[..], &[0]].concat(), b""), None),
            (vec![], None),
            (vec![0x40, 1], None),
            (vec![0xc0, 0, 0, 0, 1, 8, 1, 4], None),
        ] {
            assert_eq!(of(&datagram), expected, "{datagram:?}");
        }
        assert_eq!(new.earlier(&short(&theirs), |_| false), None);
    }

    #[test]
    fn an_id_names_its_worker_and_its_process() {
        let mut ids = WorkerIds {
            worker: 3,
            identity: Arc::new(QuicIdentity::new(7, b"secret")),
        };
        let (one, two) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!((one[0], one[1], one.len()), (3, 7, ids.cid_len()));
        assert_ne!(one, two);
    }
}
