//! Real Chromium, without a window, for what web pages may do to a gateway.
//!
//! A page tells what it saw by requests to the origin that it came from; the test waits for
//! those. Each browser has a profile of its own in a folder that goes with it. Names can be
//! led to this machine, as a hostile name server would do.
//!
//! Invariant: a browser that is missing is a failed test, never a skipped one.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// A running browser; dropping it ends it with all its processes.
pub struct Browser {
    process: Child,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page. Every name below `example` is an address of this machine.
    pub fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP *.example 127.0.0.1",
                // Keeps the process until it is ended, whatever the page does.
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, so that its helpers end with it.
            .process_group(0)
            .spawn()
            .expect("chromium starts; `make test-install` installs it");
        Self {
            process,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}
