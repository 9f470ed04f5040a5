//! Messages to the service manager, as systemd takes them from a unit with `Type=notify`
//! (sd_notify(3)): ready, stopping, alive, and sockets that are to be kept for the next process. What
//! it hands over at the start is in [`descriptors`].
//!
//! Own lines instead of a crate: the protocol is a datagram with lines of text.

pub mod descriptors;

use std::ffi::{OsStr, OsString};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;
use std::{fmt, io};

use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};

/// The time for which a message may wait for room in the manager's socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most descriptors of one message.
const MOST_DESCRIPTORS: usize = 64;

/// The states that the manager is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceState<'a> {
    /// Listeners are not open yet, plugins not compiled.
    Starting,
    /// Requests are served already, and the first tier is still being filled, for at most this long.
    Warming { within: Duration },
    /// Requests are taken. `status` is what the manager shows of it.
    Ready { status: &'a str },
    /// It reads its configuration again. Ready follows, whatever comes of it. `since` is the
    /// monotonic clock now, without which systemd waits in vain from version 257 on.
    Reloading { since: Duration },
    /// It ends within this time, which the manager has to leave it.
    Stopping { within: Duration },
    /// Every thread works.
    Alive,
    /// Another process is the service's main one now, and speaks for it. It is ready.
    Replaced { by: u32 },
}

/// The longest time from the end of the warm-up until the manager hears that the service is ready.
const WARMING_MARGIN: Duration = Duration::from_secs(10);

impl fmt::Display for ServiceState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => {
                f.write_str("STATUS=Starting: plugins are compiled, listeners are opened")
            }
            Self::Warming { within } => write!(
                f,
                "EXTEND_TIMEOUT_USEC={}\nSTATUS=Warming up: the first tier is filled",
                (*within + WARMING_MARGIN).as_micros()
            ),
            Self::Ready { status } => write!(f, "READY=1\nSTATUS={status}"),
            Self::Reloading { since } => write!(
                f,
                "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading the configuration",
                since.as_micros()
            ),
            Self::Stopping { within } => write!(
                f,
                "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=Draining: no new connections are \
                 accepted, requests under way end",
                within.as_micros()
            ),
            Self::Alive => f.write_str("WATCHDOG=1"),
            Self::Replaced { by } => write!(
                f,
                "MAINPID={by}\nREADY=1\nSTATUS=Another process has taken over"
            ),
        }
    }
}

/// The time of the monotonic clock, as the service manager reads it.
pub fn monotonic_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// The service manager of this process, if it has one that wants to hear of it.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn of_this_process() -> Self {
        Self::of(&|variable| std::env::var_os(variable))
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_for_us = match variable("WATCHDOG_PID") {
            Some(_) => number("WATCHDOG_PID") == Some(process::id().into()),
            None => true,
        };
        let limit = number("WATCHDOG_USEC").filter(|usec| is_for_us && *usec > 0);
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        match address(&path) {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog: limit.map(Duration::from_micros),
            },
            Err(error) => {
                tracing::warn!(
                    %error,
                    "NOTIFY_SOCKET is neither a path nor an abstract name (@…): the service \
                     manager is told nothing"
                );
                Self::default()
            }
        }
    }

    /// The interval at which a sign of life is sent: half of the time after which the manager acts.
    /// None if it wants none.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Tells the manager, if there is one. A failure is logged and changes nothing else.
    pub fn tell(&self, state: ServiceState<'_>) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = send(socket, &state.to_string()) {
            tracing::warn!(%error, "the service manager can't be told: {state:?}");
        }
    }
}

impl ServiceManager {
    /// Has the manager keep these descriptors under a name, so that the next process of the service
    /// gets them. It does if its unit has `FileDescriptorStoreMax=`, and ignores those that it has.
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        for some in descriptors.chunks(MOST_DESCRIPTORS) {
            let message = format!("FDSTORE=1\nFDNAME={name}");
            if let Err(error) = send_with(socket, &message, some) {
                tracing::warn!(%error, name, "the service manager can't be given sockets to keep");
            }
        }
    }

    /// Has the manager let go of the descriptors of this name.
    pub fn let_go(&self, name: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, &format!("FDSTOREREMOVE=1\nFDNAME={name}"))
        {
            tracing::warn!(%error, name, "the service manager can't be told to let go of sockets");
        }
    }
}

fn send_with(to: &SocketAddr, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let address = match (to.as_pathname(), to.as_abstract_name()) {
        (Some(path), _) => SocketAddrUnix::new(path)?,
        (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
        (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut space =
        vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let text = [IoSlice::new(message.as_bytes())];
    sendmsg_addr(&socket, &address, &text, &mut control, SendFlags::empty())?;
    Ok(())
}

/// Where NOTIFY_SOCKET is: a path, or with `@` a name that is in no file system.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(text),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn send(to: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        ServiceManager::of(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        })
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn messages_reach_a_socket_with_a_path_and_an_abstract_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("lamina-test-{}", process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, variable) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap()),
            (
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
                &*format!("@{name}"),
            ),
        ] {
            let manager = manager(&[("NOTIFY_SOCKET", variable)]);
            manager.tell(ServiceState::Ready { status: "Serving" });
            assert_eq!(received(&socket), "READY=1\nSTATUS=Serving");
            manager.tell(ServiceState::Stopping {
                within: Duration::from_secs(30),
            });
            let stopping = received(&socket);
            let begin = "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=";
            assert!(stopping.starts_with(begin), "{stopping}");
            assert_eq!(manager.watchdog_interval(), None);
        }
    }

    #[test]
    fn a_watchdog_is_for_this_process_or_for_any() {
        let ours = process::id().to_string();
        let interval = |pid: Option<&str>| {
            let mut variables = vec![("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "4000000")];
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            manager(&variables).watchdog_interval()
        };
        assert_eq!(interval(None), Some(Duration::from_secs(2)));
        assert_eq!(interval(Some(&ours)), Some(Duration::from_secs(2)));
        assert_eq!(interval(Some("1")), None);
        assert_eq!(interval(Some("it")), None);
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        for variables in [
            &[][..],
            &[("NOTIFY_SOCKET", "")],
            &[("NOTIFY_SOCKET", "vsock:2:1"), ("WATCHDOG_USEC", "1")],
            &[("WATCHDOG_USEC", "1000000")],
        ] {
            let manager = manager(variables);
            manager.tell(ServiceState::Starting);
            assert!(manager.socket.is_none());
            assert_eq!(manager.watchdog_interval(), None);
        }
    }
}
