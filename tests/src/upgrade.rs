//! Gateways whose place another process takes.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cli::{self, Ran};
use crate::gateway::Gateway;
use crate::wait::wait_until;

/// The keys of `server` with an upgrade socket beside the configuration.
pub fn server(more: &str) -> String {
    format!("{{threads: 2, drain_timeout: 1m, upgrade_socket: upgrade.sock{more}}}")
}

impl Gateway {
    /// Its upgrade socket, if its configuration has [`server`].
    pub fn upgrade_socket(&self) -> std::path::PathBuf {
        self.dir().join("upgrade.sock")
    }

    /// Runs `lamina upgrade` with these arguments to its end.
    pub async fn try_upgrade(&self, more: &[&str]) -> Ran {
        let config = self.dir().join("lamina.yaml");
        let mut arguments = vec!["upgrade".to_owned(), "-c".to_owned()];
        arguments.push(config.display().to_string());
        arguments.extend(more.iter().map(|one| (*one).to_owned()));
        let ran = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cli::run(&arguments)
        });
        let ran = ran.await.expect("the command runs");
        if let Some(process) = upgraded(&ran) {
            self.successors().push(process);
        }
        ran
    }

    /// Has another process of the same program take its place. Answers its number.
    pub async fn upgrade(&self) -> u32 {
        let ran = self.try_upgrade(&[]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        upgraded(&ran).unwrap_or_else(|| panic!("no process in {}", ran.output()))
    }

    /// The process that has its place now.
    pub fn current_process(&self) -> u32 {
        let last = self.successors().last().copied();
        last.unwrap_or_else(|| self.process_id())
    }

    /// Waits until no process but the current one is left.
    pub async fn only_the_last_process(&mut self, limit: Duration) {
        if !self.successors().is_empty() {
            self.ended(limit).await;
        }
        let all = self.successors().clone();
        let Some((_, earlier)) = all.split_last() else {
            return;
        };
        for process in earlier {
            ended(*process, limit).await;
        }
    }

    pub(crate) fn end_successors(&self) {
        for process in self.successors().drain(..) {
            signal(process, Signal::KILL);
        }
    }

    fn successors(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        let successors = self.successors.lock();
        successors.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends SIGTERM.
pub fn terminate(process: u32) {
    signal(process, Signal::TERM);
}

/// Whether a process runs.
pub fn is_running(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let state = state.unwrap_or_default();
    let state = state.rsplit(')').next().unwrap_or_default().trim_start();
    // One that has ended may wait for its parent.
    let lives = !state.is_empty() && !state.starts_with('Z');
    lives && number(process).is_some_and(|id| test_kill_process(id).is_ok())
}

/// Waits until a process has ended.
pub async fn ended(process: u32, limit: Duration) {
    wait_until("the process ends", limit, || !is_running(process)).await;
}

/// Writes a program of this text, in which the gateway's program is `$LAMINA`.
pub fn script(path: &Path, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let text = text.replace("$LAMINA", &cli::binary().display().to_string());
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("the folder can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("the file is ours");
    path.display().to_string()
}

/// The process that serves now, as the command has printed it.
fn upgraded(ran: &Ran) -> Option<u32> {
    let (_, rest) = ran.stdout.split_once("upgraded: process ")?;
    rest.split(' ').next()?.parse().ok()
}

fn signal(process: u32, signal: Signal) {
    if let Some(id) = number(process) {
        let _ = kill_process(id, signal);
    }
}

fn number(process: u32) -> Option<Pid> {
    i32::try_from(process).ok().and_then(Pid::from_raw)
}
