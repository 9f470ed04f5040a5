//! The new program, as the old process starts it for an operator.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How a new program is started.
#[derive(Clone, Debug, Default)]
pub struct NewProgram {
    /// The configuration of this process. None: it has no file.
    pub config: Option<PathBuf>,
    /// What this process was told on its command line beside that.
    pub arguments: Vec<OsString>,
}

/// What is for this process alone.
const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// A program that was started. It is ended when it is dropped before it was let go.
pub(super) struct StartedProgram {
    child: Option<Child>,
}

impl NewProgram {
    /// Starts a program that is to ask for the take-over on this socket.
    pub(super) fn start(
        &self,
        binary: &Path,
        config: Option<PathBuf>,
        socket: &Path,
    ) -> io::Result<StartedProgram> {
        let Some(config) = config.or_else(|| self.config.clone()) else {
            return Err(io::Error::other(
                "the gateway was started with --domain and has no configuration file: name one with -c",
            ));
        };
        let mut command = Command::new(binary);
        command.arg("run").arg("--take-over").arg(socket);
        command.arg("-c").arg(config).args(&self.arguments);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", binary.display()))
        })?;
        Ok(StartedProgram { child: Some(child) })
    }
}

/// A handle of a process that runs now.
pub(super) fn handle(process: u32) -> Option<OwnedFd> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw)?;
    pidfd_open(process, PidfdFlags::empty()).ok()
}

/// The process that has started this one.
pub(super) fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok()
}

impl StartedProgram {
    pub(super) fn process(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Leaves it to itself.
    pub(super) fn let_go(mut self) {
        self.child = None;
    }
}

impl Drop for StartedProgram {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
