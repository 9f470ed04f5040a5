//! File descriptors of the process: as many as allowed, with some kept free.
//!
//! Neighbours: `accept` asks after each connection. The listeners for clients stop before the
//! last ones are taken, so that the admin port still answers and requests that are being served
//! can still reach their origins.
//!
//! Decision: the kernel gives out the lowest free number, so the number of a new socket tells
//! how many are in use; nothing is counted.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

/// The most descriptors that are kept free.
const RESERVE: u64 = 128;

/// The time between two checks whether some are free again.
const LOOK: Duration = Duration::from_millis(100);

/// Raises the soft limit to the hard one: only a process that uses `select` needs the lower one.
/// Returns how many descriptors are allowed now, or `None` without a limit.
pub fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        // If it fails, the process keeps the limit that it had.
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    limit.current
}

/// Whether only the reserve is left after `newest` was opened just now.
pub(super) fn are_scarce(newest: &impl AsRawFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return false;
    };
    let reserve = RESERVE.min(limit / 4);
    u64::try_from(newest.as_raw_fd()).is_ok_and(|number| number >= limit - reserve)
}

/// Waits until more than the reserve is free.
pub(super) async fn are_free() {
    loop {
        sleep(LOOK).await;
        if File::open("/dev/null").is_ok_and(|probe| !are_scarce(&probe)) {
            return;
        }
    }
}
