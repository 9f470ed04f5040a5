//! Descriptors that the service manager hands over at the start (sd_listen_fds(3)): sockets of a
//! `.socket` unit, and those that an earlier process had it keep.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process;

use rustix::io::{FdFlags, fcntl_setfd};

/// The first one.
const FIRST: RawFd = 3;
/// The most that are taken; more are a mistake.
const MOST: i32 = 1_024;

/// A descriptor that was open before this process began.
#[derive(Debug)]
pub struct InheritedDescriptor {
    pub descriptor: OwnedFd,
    /// The name in `LISTEN_FDNAMES`; empty if it has none.
    pub name: String,
}

/// Takes the descriptors that are meant for this process. It must be called once, before anything
/// else opens descriptors: a second call would own them twice.
pub fn take() -> Vec<InheritedDescriptor> {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name)?.parse::<i32>().ok();
    let is_for_us = number("LISTEN_PID").is_some_and(|id| u32::try_from(id) == Ok(process::id()));
    let count = number("LISTEN_FDS").filter(|_| is_for_us);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').chain(std::iter::repeat(""));
    let numbers = FIRST..FIRST + count.unwrap_or(0).clamp(0, MOST);
    let inherited = numbers
        .zip(names)
        .map(|(number, name)| InheritedDescriptor {
            descriptor: owned(number),
            name: name.to_owned(),
        });
    inherited.collect()
}

#[allow(unsafe_code)]
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: the manager opened the descriptor for this process, whose id it names, and nothing
    // else in it knows the descriptor.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // Programs that this one starts must not get it. It fails for a number that is not open, which
    // shows at its use.
    let _ = fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
    descriptor
}
