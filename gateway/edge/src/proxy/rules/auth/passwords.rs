//! Passwords: hashed away from the threads that serve requests, a few at a time, and remembered for
//! a while once they were right.
//!
//! What is remembered is a keyed digest of user, password and the line of the file, under a key that
//! this process has made up. So a changed line is a line that nobody has shown yet, whatever
//! configuration it stands in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordVerifier};
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::htpasswd::{PasswordLine, PasswordScheme};

/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// The number of remembered users from which on the memory is looked through for old ones.
const MANY: usize = 10_000;
/// The most requests that wait for their turn, and how long.
const MOST_WAITING: usize = 256;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A user's word.
pub struct ShownPassword {
    pub user: String,
    pub password: Vec<u8>,
}

/// What a password turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordVerdict {
    Right,
    Wrong,
    /// So many wait for theirs that nothing can be said of it.
    TooManyWait,
}

/// What this process knows of passwords, and its places for hashing.
pub struct PasswordMemory {
    key: hmac::Key,
    known: Mutex<HashMap<PasswordDigest, KnownPassword>>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

type PasswordDigest = [u8; 32];

struct KnownPassword {
    digest: PasswordDigest,
    until: Instant,
}

impl Default for PasswordMemory {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut secret = [0; 32];
        // Without random numbers no TLS works either.
        let key = match aws_lc_rs::rand::fill(&mut secret) {
            Ok(()) => hmac::Key::new(hmac::HMAC_SHA256, &secret),
            Err(_) => unreachable!("AWS-LC ends the process if there are no random numbers"),
        };
        Self {
            key,
            known: Mutex::default(),
            places: Arc::new(Semaphore::new(cores)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl PasswordMemory {
    /// Whether this password was right for this line a short time ago.
    pub fn knows(&self, shown: &ShownPassword, line: &PasswordLine, now: Instant) -> bool {
        let user = self.digest(&[line.user.as_bytes(), line.hash.as_bytes()]);
        let known = self.known.lock();
        let known = known.get(&user).filter(|known| known.until > now);
        known.is_some_and(|known| known.digest.ct_eq(&self.digest_of(shown, line)).into())
    }

    /// Compares a password with a line, in its turn. `line` may be of another user than the one who
    /// is shown: then it takes as long, and is wrong.
    pub async fn compare(&self, shown: ShownPassword, line: &Arc<PasswordLine>) -> PasswordVerdict {
        let Some(_waiting) = WaitingPlace::take(&self.waiting) else {
            return PasswordVerdict::TooManyWait;
        };
        let turn = timeout(LONGEST_WAIT, Arc::clone(&self.places).acquire_owned());
        let Ok(Ok(place)) = turn.await else {
            return PasswordVerdict::TooManyWait;
        };
        if self.knows(&shown, line, Instant::now()) {
            return PasswordVerdict::Right;
        }
        let digest = self.digest_of(&shown, line);
        let compared = Arc::clone(line);
        let hashing = tokio::task::spawn_blocking(move || {
            // It goes with the work and not with the request, whose client may leave.
            let _place = place;
            is_right(&shown.password, &compared) && *shown.user == *compared.user
        });
        match hashing.await {
            Ok(true) => {
                self.remember(line, digest);
                PasswordVerdict::Right
            }
            Ok(false) | Err(_) => PasswordVerdict::Wrong,
        }
    }

    fn remember(&self, line: &PasswordLine, digest: PasswordDigest) {
        let user = self.digest(&[line.user.as_bytes(), line.hash.as_bytes()]);
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= MANY {
            known.retain(|_, known| known.until > now);
        }
        let until = now + REMEMBERED;
        known.insert(user, KnownPassword { digest, until });
    }

    fn digest_of(&self, shown: &ShownPassword, line: &PasswordLine) -> PasswordDigest {
        let (user, hash) = (shown.user.as_bytes(), line.hash.as_bytes());
        self.digest(&[user, &shown.password, hash])
    }

    fn digest(&self, parts: &[&[u8]]) -> PasswordDigest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = PasswordDigest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// A number that is always the same for one user, to choose by.
    pub fn number_of(&self, user: &str) -> usize {
        let digest = self.digest(&[user.as_bytes()]);
        digest
            .iter()
            .take(4)
            .fold(0, |number, octet| (number << 8) | usize::from(*octet))
    }
}

/// A request that waits.
struct WaitingPlace<'a>(&'a AtomicUsize);

impl<'a> WaitingPlace<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(place)
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_right(password: &[u8], line: &PasswordLine) -> bool {
    match line.scheme {
        PasswordScheme::Bcrypt => bcrypt::verify(password, &line.hash).unwrap_or(false),
        PasswordScheme::Argon2id => Argon2::default()
            .verify_password(password, &*line.hash)
            .is_ok(),
    }
}
