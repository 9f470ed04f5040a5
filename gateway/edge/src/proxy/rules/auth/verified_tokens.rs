//! Tokens whose signatures were found right: a client shows the same one with each request, and a
//! hit should not cost a signature each time.
//!
//! A token counts until it expires, and as long as the keys are those it was verified with.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::AuthenticatedUser;
use super::public_keys::PublicKey;

/// The most tokens of a route that are remembered.
const MOST: usize = 10_000;

/// The tokens of a route.
#[derive(Default)]
pub struct VerifiedTokens(Mutex<HashMap<[u8; 32], VerifiedToken>>);

struct VerifiedToken {
    user: AuthenticatedUser,
    until: Instant,
    keys: Weak<Vec<PublicKey>>,
}

impl VerifiedTokens {
    /// Whose token this is, if it was verified with these keys and has not expired.
    pub fn find(&self, token: &[u8], keys: &Arc<Vec<PublicKey>>) -> Option<AuthenticatedUser> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut tokens = self.0.lock();
        let known = tokens.get(&digest)?;
        if known.until <= Instant::now() || !std::ptr::eq(known.keys.as_ptr(), Arc::as_ptr(keys)) {
            tokens.remove(&digest);
            return None;
        }
        Some(known.user.clone())
    }

    /// Remembers a token that was verified.
    pub fn keep(
        &self,
        token: &[u8],
        keys: &Arc<Vec<PublicKey>>,
        (user, until): (&AuthenticatedUser, Instant),
    ) {
        let now = Instant::now();
        let mut tokens = self.0.lock();
        if tokens.len() >= MOST {
            tokens.retain(|_, token| token.until > now);
        }
        if tokens.len() < MOST {
            let token = Sha256::digest(token).into();
            let user = user.clone();
            let keys = Arc::downgrade(keys);
            tokens.insert(token, VerifiedToken { user, until, keys });
        }
    }
}
