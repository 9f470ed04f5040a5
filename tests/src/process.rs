//! A server's process tree: started, on a core if wanted, its CPU time read, ended with all
//! its children. For the benchmark and the differential run, which start servers of others.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::SOON;

/// Kernel clock ticks a second (`USER_HZ`), which Linux fixes at 100 for /proc on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
}

impl Server {
    /// Starts `program`, on `core` if there is one, and waits until it accepts at `address`.
    ///
    /// # Errors
    /// When it can't be started, ends, or does not listen within a minute.
    pub fn start(
        core: Option<usize>,
        address: SocketAddr,
        program: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let process = core
            .map_or_else(|| Command::new(program), |core| pinned(core, program))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut server = Self { address, process };
        server
            .wait_until_it_accepts()
            .with_context(|| format!("{program} {}", arguments.join(" ")))?;
        Ok(server)
    }

    /// The number of its first process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// User and system time of the whole tree so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }

    fn wait_until_it_accepts(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("ended with {status} before it listened");
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("does not listen at {}", self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// User and system time of this process and those that it has started, so far.
pub fn cpu(root: u32) -> Duration {
    let ticks: u64 = tree(root).into_iter().filter_map(ticks_of).sum();
    Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND)
}

impl Drop for Server {
    /// Asks the master to end, which ends its workers; what is left after three seconds is killed.
    fn drop(&mut self) {
        let all = tree(self.process.id());
        signal(self.process.id(), Signal::TERM);
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None))
            && start.elapsed() < Duration::from_secs(3)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        for id in all.into_iter().filter(|id| parent_of(*id).is_some()) {
            signal(id, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

/// `program` on one core; anywhere when there is only one.
pub fn pinned(core: usize, program: &str) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// SIGSTOP to the process and all that come from it: connections stand, answers never come.
/// Returns when all their threads stand still, which takes a moment.
pub fn freeze(root: u32) {
    let all = tree(root);
    all.iter().for_each(|id| signal(*id, Signal::STOP));
    let start = Instant::now();
    while !all.iter().all(|id| stands_still(*id)) {
        assert!(
            start.elapsed() < SOON,
            "process {root} does not stand still"
        );
        std::thread::yield_now();
    }
}

/// SIGCONT to the same.
pub fn thaw(root: u32) {
    tree(root).iter().for_each(|id| signal(*id, Signal::CONT));
}

fn stands_still(id: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{id}/task"));
    threads.into_iter().flatten().flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().next());
        // A thread that has ended meanwhile has none.
        state.is_none_or(|state| matches!(state, "T" | "t" | "Z" | "X"))
    })
}

/// Those that a process has started and that have not ended.
pub fn children(of: u32) -> Vec<u32> {
    tree(of).split_off(1)
}

/// The process and all that come from it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let everyone: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent_of(id)?)))
        .collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            everyone
                .iter()
                .filter(|(_, its)| *its == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    found
}

/// The fields of /proc/ID/stat after the name, which may contain anything up to the last `)`.
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(id: u32) -> Option<u32> {
    stat(id)?.get(1)?.parse().ok()
}

/// `utime` and `stime`, fields 14 and 15 of proc(5).
fn ticks_of(id: u32) -> Option<u64> {
    let fields = stat(id)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
