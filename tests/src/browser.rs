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
    profile: TempDir,
}

/// The file in the profile with what the browser says.
const LOG: &str = "browser.log";

impl Browser {
    /// Opens a page. Every name below `example` is an address of this machine.
    pub fn open(url: &str) -> Self {
        Self::launch(url, &["--disable-quic".to_owned()])
    }

    /// Opens a page by HTTP/3. `place` is the host and port for which QUIC is used unasked; `pin` is
    /// the SHA-256 of its certificate's key, which is trusted whoever signed it.
    pub fn open_by_http3(url: &str, place: &str, pin: &str) -> Self {
        let more = [
            "--enable-quic".to_owned(),
            format!("--origin-to-force-quic-on={place}"),
            format!("--ignore-certificate-errors-spki-list={pin}"),
        ];
        Self::launch(url, &more)
    }

    /// What pages have written to the console so far, and what the browser wrote there about them.
    pub fn console(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.profile.path().join(LOG)).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains(":CONSOLE"));
        lines.map(str::to_owned).collect()
    }

    fn launch(url: &str, more: &[String]) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let log = std::fs::File::create(profile.path().join(LOG)).expect("a file for the log");
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP *.example 127.0.0.1",
                "--enable-logging=stderr",
                // Keeps the process until it is ended, whatever the page does.
                "--remote-debugging-port=0",
            ])
            .args(more)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A group of its own, so that its helpers end with it.
            .process_group(0)
            .spawn()
            .expect("chromium starts; `make test-install` installs it");
        Self { process, profile }
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
