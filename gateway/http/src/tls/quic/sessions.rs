//! Sessions of QUIC that are kept in the process, for early data.
//!
//! rustls takes early data with such sessions alone, and not with tickets. Each is taken out when it
//! is used, so that early data that somebody recorded is taken once at most. They are bound to
//! their policy as tickets are.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use crate::tls::tickets::TlsPolicyId;

/// The most sessions of a listener; beyond that the oldest ones are forgotten.
const MOST_SESSIONS: usize = 16_384;

/// The sessions of a listener. Clones share them.
#[derive(Clone)]
pub(in crate::tls) struct KeptSessions(Arc<ServerSessionMemoryCache>);

impl KeptSessions {
    pub(in crate::tls) fn new() -> Self {
        Self(ServerSessionMemoryCache::new(MOST_SESSIONS))
    }

    /// Those of one policy.
    pub(in crate::tls) fn of(&self, policy: TlsPolicyId) -> SessionsOfPolicy {
        SessionsOfPolicy {
            policy,
            kept: self.clone(),
        }
    }
}

/// The sessions of one policy, which no other one finds.
pub(in crate::tls) struct SessionsOfPolicy {
    policy: TlsPolicyId,
    kept: KeptSessions,
}

impl SessionsOfPolicy {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.policy.0, key].concat()
    }
}

impl fmt::Debug for SessionsOfPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsOfPolicy").finish_non_exhaustive()
    }
}

impl StoresServerSessions for SessionsOfPolicy {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.0.put(self.key(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.0.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.0.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        self.kept.0.can_cache()
    }
}

/// No tickets, which rustls wants to hear before it takes early data.
#[derive(Debug)]
pub(super) struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_policy_alone_and_taken_once() {
        let kept = KeptSessions::new();
        let (one, two) = (kept.of(TlsPolicyId([1; 32])), kept.of(TlsPolicyId([2; 32])));
        assert!(one.put(b"key".to_vec(), b"session".to_vec()));
        assert_eq!(two.take(b"key"), None);
        assert_eq!(two.get(b"key"), None);
        // As after a reload.
        let again = kept.of(TlsPolicyId([1; 32]));
        assert_eq!(again.take(b"key").unwrap(), b"session");
        assert_eq!(one.take(b"key"), None);
    }
}
