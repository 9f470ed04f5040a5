//! Under which name this node publishes, and the names that nobody can guess.

use crate::bus::seal::SealKeys;

/// The identity under which this node publishes.
#[derive(Clone, Debug)]
pub struct PublisherIdentity {
    pub source: String,
    /// Tells two lives (process runs) of one source apart; see [`new_boot`].
    pub boot: u64,
    pub namespace: Option<String>,
    /// The keys that seal its events; none where there is no `seal_key`.
    pub seal: Option<SealKeys>,
}

/// Makes an event id that no event has had and that nobody can predict. Whoever knew an id in
/// advance could send another event with it first, and the real one would count as a duplicate.
pub fn new_id() -> String {
    format!("{:032x}", u128::from_be_bytes(random()))
}

/// Makes the identifier of a life (a process run) that has just begun.
pub fn new_boot() -> u64 {
    u64::from_be_bytes(random())
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}
