//! Descriptors that the service manager hands over at the start (sd_listen_fds(3)): sockets of a
//! `.socket` unit, and those that an earlier process had it keep.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

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

/// Why the descriptors of the service manager can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedDescriptorError {
    #[error(
        "LISTEN_FDS is `{given}`; expected the number of descriptors that were handed over, at most {MOST}"
    )]
    Count { given: String },
    #[error(
        "LISTEN_FDS says that {count} descriptors were handed over, but descriptor {missing} is not \
         open: is the program started through another one that closes them?"
    )]
    Missing { count: i32, missing: RawFd },
}

/// Takes the descriptors that are meant for this process. It must be called once, before anything
/// else opens descriptors: a second call would own them twice.
///
/// # Errors
/// If there are not as many as was said.
pub fn take() -> Result<Vec<InheritedDescriptor>, InheritedDescriptorError> {
    let variable = |name: &str| std::env::var(name).ok();
    let id = variable("LISTEN_PID").and_then(|id| id.parse::<u32>().ok());
    let Some(given) = variable("LISTEN_FDS").filter(|_| id == Some(process::id())) else {
        return Ok(Vec::new());
    };
    let count = given.parse::<i32>().ok();
    let count = count.filter(|count| (0..=MOST).contains(count));
    let count = count.ok_or(InheritedDescriptorError::Count { given })?;
    let numbers = FIRST..FIRST + count;
    if let Some(missing) = numbers.clone().find(|number| !is_open(*number)) {
        return Err(InheritedDescriptorError::Missing { count, missing });
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').chain(std::iter::repeat(""));
    let inherited = numbers
        .zip(names)
        .map(|(number, name)| InheritedDescriptor {
            descriptor: owned(number),
            name: name.to_owned(),
        });
    Ok(inherited.collect())
}

#[allow(unsafe_code)]
fn is_open(number: RawFd) -> bool {
    // SAFETY: nothing is done with the descriptor but to ask whether there is one, and nothing
    // opens or closes any at this moment.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}

#[allow(unsafe_code)]
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: it is open, the manager opened it for this process, whose id it names, and nothing
    // else in it knows the descriptor.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // Programs that this one starts must not get it.
    let _ = fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
    descriptor
}
