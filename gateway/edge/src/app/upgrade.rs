//! Another process takes the place of this one, and no request is lost.
//!
//! The old process listens on a Unix socket (0600, and only its own user or root is heard:
//! `socket`). Two may connect: the new process itself (`lamina run --take-over`), and an operator
//! (`lamina upgrade`), for whom the old process starts the new one (`program`), so that it has the
//! same environment, rights and control group. What is said (`messages`) is JSON with a protocol
//! number, and descriptors beside it:
//!
//! | The new process (`taking`) | The old process (`giving`) |
//! |---|---|
//! | `take_over` | |
//! | | takes up no other configuration from now on; writes down what its cache holds, where `cache.warm` says so; `state`: the secret that tickets and QUIC's keys are derived from, its generation, and duplicates of all sockets, with the locks of Unix sockets; the purge log of a disk tier (`purge_log`) |
//! | reads its configuration, compiles, opens what is new, joins the bus, fills its cache, answers its own health check; nothing is accepted | serves |
//! | `ready`, with the listeners whose sockets it uses, and who it is on the event bus | |
//! | | answers nothing from its cache any more and takes no purges; reads no datagrams; `yours`, and what was purged since its cache was written down |
//! | purges that, too; `serving` | |
//! | | tells systemd the new main process; `released` |
//! | accepts, moves its own upgrade socket, which it opened before `ready`, to the place of the old one, tells systemd that it is ready | accepts nothing more, closes the disk tier, drains; for each purge on its last connections `purged` |
//! | purges, `purged` | answers that client, and at last ends |
//!
//! The new process accepts nothing before `released`, or the end of the old one: a process that was
//! stopped for a while between `yours` and `serving` finds that the old one goes on, and ends. Both of
//! them would serve otherwise, and a purge would reach one cache of the two.
//!
//! What goes wrong before `serving` — a refusal, an error, an end, silence for longer than the limit —
//! leaves the old process as it was: it has closed nothing. Connections that wait in a socket belong
//! to both processes, so whichever accepts them answers them.
//!
//! After `yours` the old process sends every request on to the origin: a purge that the new process
//! has taken must hold for those few that still come over the old connections, too. What these
//! requests make invalid, or purge, the new process is told before the client has its answer
//! (`purges`). A process that is itself replaced hands on the ways by which still earlier ones tell
//! it, so that it need not stay for them.
//!
//! What is purged between that writing and `yours` is kept for the new process, which purges it before
//! it accepts anything. An older version keeps nothing: if something was purged there and no second
//! tier's log tells what, everything that was taken over is in doubt, and is validated before it is
//! served. A disk has one process at a time, so the old one reads its purge log for the new one, which
//! can judge by it what it begins with, and goes on with the log where that ends when it has the disk.
//!
//! `yours` also says what the old process has heard of the other nodes (`heard`), if it has heard the new
//! one on the bus, so that what it hands over is not in doubt because the new one has only just joined
//! them. What the old one begins before it is certain that it is replaced can be taken back
//! (`provisional`).
//!
//! Decision: descriptors are handed over and never bound a second time, since a second socket in a
//! group takes connections from the first, and closing one resets what waits in it. So a plain start
//! still refuses a port that is in use.

mod giving;
mod heard;
mod messages;
mod program;
mod provisional;
mod purge_log;
mod purges;
mod socket;
mod taking;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Signal, pidfd_send_signal};

use crate::http::endpoint::Endpoint;

pub use giving::{NAMESAKE_LEAVES, UpgradeGiver, UpgradeGiverParts};
pub use messages::{UpgradeOutcome, ask_for_upgrade};
pub use program::NewProgram;
pub use purges::{PredecessorPurge, PredecessorPurges};
pub use socket::{PreparedUpgradeSocket, UpgradeSocket, UpgradeSocketError};
pub use taking::{HandedCache, HandedKnowledge, TakeOver, TakeOverError};

/// The process that has taken the place of this one.
#[derive(Clone, Debug)]
pub struct ReplacingProcess {
    pub process: u32,
    /// The process itself: its number may be another one's when it has ended. None: the system has
    /// no such handles.
    handle: Option<Arc<OwnedFd>>,
    pub version: String,
    /// The listeners whose sockets it uses.
    pub taken: Vec<Endpoint>,
}

impl ReplacingProcess {
    /// Sends a signal to it, and to no other process that may have its number by now.
    ///
    /// # Errors
    /// If it has ended, or can't be told from others.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let unknown = || {
            let why = "the system has no handles of processes (pidfd_open)";
            io::Error::new(io::ErrorKind::Unsupported, why)
        };
        let handle = self.handle.as_ref().ok_or_else(unknown)?;
        Ok(pidfd_send_signal(handle, signal)?)
    }
}

/// Where the socket is, unless the configuration says it: in the folder that systemd makes for the
/// service (`RuntimeDirectory=`). None outside of systemd.
pub fn usual_socket() -> Option<PathBuf> {
    let folders = std::env::var("RUNTIME_DIRECTORY").ok()?;
    let first = folders
        .split(':')
        .next()
        .filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first).join("upgrade.sock"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_itself_and_never_another_one_with_its_number() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = ReplacingProcess {
            process: child.id(),
            handle: program::handle(child.id()).map(Arc::new),
            version: String::new(),
            taken: Vec::new(),
        };
        now.signal(Signal::HUP).unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(Signal::HUP.as_raw()));
        // Whoever gets its number from now on is not meant.
        now.signal(Signal::HUP).unwrap_err();
        let this_one = ReplacingProcess {
            process: std::process::id(),
            handle: None,
            ..now
        };
        this_one.signal(Signal::HUP).unwrap_err();
    }
}
