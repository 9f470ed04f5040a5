//! DNS-01: a program makes the record, the authoritative servers show it, and the program removes
//! it when the order has ended, however that was. A record that is left to another process, or to the
//! next node that goes on with the order, is removed by that one.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lamina_base::tls::read_regular;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::config::AcmeDnsChallenge;
use super::dns::{DnsError, DnsResolver};
use super::records::StoredDnsRecord;

/// The label that records of challenges have in front (RFC 8555 §8.4).
const LABEL: &str = "_acme-challenge";

/// How often it is looked whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The pauses before the servers are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// The most octets of what the program says that are told.
const MOST_SAID: u64 = 4 << 10;

/// Why a record is not there.
#[derive(Debug, thiserror::Error)]
pub enum DnsChallengeError {
    #[error("{program}: {reason}")]
    Program { program: String, reason: String },
    #[error("{}: {reason}", file.display())]
    Environment {
        file: std::path::PathBuf,
        reason: String,
    },
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error("{name}: the name servers do not show the record within {limit:?}")]
    NotShown { name: String, limit: Duration },
}

/// What the program is to do.
#[derive(Clone, Copy, Debug)]
enum DnsChange {
    Present,
    Cleanup,
}

/// A record that is there until this is dropped.
pub struct PublishedRecord {
    dns: AcmeDnsChallenge,
    record: StoredDnsRecord,
    /// Another process goes on with the order, so the record stays.
    left: Arc<AtomicBool>,
}

/// The record that is to be made for a host.
///
/// # Errors
/// If it is not known where it belongs.
pub async fn record_of(
    dns: &AcmeDnsChallenge,
    host: &str,
    text: String,
) -> Result<StoredDnsRecord, DnsChallengeError> {
    let resolver = DnsResolver::new(&dns.resolvers);
    let name = resolver.canonical(&format!("{LABEL}.{host}")).await?;
    Ok(StoredDnsRecord { name, text })
}

impl PublishedRecord {
    /// From here on it is cleaned up, whether it was made or not: a program that fails may have made
    /// it nevertheless.
    pub fn new(dns: &AcmeDnsChallenge, record: StoredDnsRecord, left: Arc<AtomicBool>) -> Self {
        Self {
            dns: dns.clone(),
            record,
            left,
        }
    }

    /// What it is.
    pub fn record(&self) -> &StoredDnsRecord {
        &self.record
    }

    /// Makes the record, and waits until its name servers show it.
    ///
    /// # Errors
    /// If the program fails, or the servers don't show it.
    pub async fn show(&self) -> Result<(), DnsChallengeError> {
        self.change(DnsChange::Present).await?;
        self.wait_until_shown(&DnsResolver::new(&self.dns.resolvers))
            .await
    }

    /// The same for one that may be there already: not every program makes a record twice.
    ///
    /// # Errors
    /// As for [`show`](Self::show).
    pub async fn show_again(&self) -> Result<(), DnsChallengeError> {
        let resolver = DnsResolver::new(&self.dns.resolvers);
        let StoredDnsRecord { name, text } = &self.record;
        let servers = resolver.servers_of(name).await?;
        match resolver.is_shown(&servers, name, text).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => self.show().await,
        }
    }

    async fn wait_until_shown(&self, resolver: &DnsResolver) -> Result<(), DnsChallengeError> {
        let began = Instant::now();
        let mut pause = ASK_AGAIN;
        loop {
            let StoredDnsRecord { name, text } = &self.record;
            let servers = resolver.servers_of(name).await?;
            match resolver.is_shown(&servers, name, text).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::info!(%error, name, "a name server can't be asked yet");
                }
            }
            let limit = self.dns.propagation.0;
            if began.elapsed() + pause > limit {
                let name = name.clone();
                return Err(DnsChallengeError::NotShown { name, limit });
            }
            sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }

    async fn change(&self, change: DnsChange) -> Result<(), DnsChallengeError> {
        let (dns, record) = (self.dns.clone(), self.record.clone());
        let ran = tokio::task::spawn_blocking(move || run(&dns, change, &record)).await;
        ran.unwrap_or_else(|error| {
            Err(DnsChallengeError::Program {
                program: String::new(),
                reason: error.to_string(),
            })
        })
    }
}

impl Drop for PublishedRecord {
    fn drop(&mut self) {
        if self.left.load(Ordering::Acquire) {
            return;
        }
        let (dns, record) = (self.dns.clone(), self.record.clone());
        // Without a runtime the process is ending, and the record is left for who goes on with the
        // order.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn_blocking(move || {
            if let Err(error) = run(&dns, DnsChange::Cleanup, &record) {
                tracing::warn!(%error, name = record.name, "a record of the DNS is not removed");
            }
        });
    }
}

/// Runs the program to its end.
fn run(
    dns: &AcmeDnsChallenge,
    change: DnsChange,
    StoredDnsRecord { name, text }: &StoredDnsRecord,
) -> Result<(), DnsChallengeError> {
    let Some((program, arguments)) = dns.exec.split_first() else {
        return Ok(());
    };
    let failed = |reason: String| DnsChallengeError::Program {
        program: program.clone(),
        reason,
    };
    let word = match change {
        DnsChange::Present => "present",
        DnsChange::Cleanup => "cleanup",
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args([word, name.as_str(), text.as_str()])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(environment(dns)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let said = child.stderr.take().map(|pipe| {
        thread::spawn(move || {
            let mut said = String::new();
            let mut pipe = pipe.take(MOST_SAID);
            // What can't be read is not told.
            let _ = pipe.read_to_string(&mut said);
            let _ = io::copy(&mut pipe.into_inner(), &mut io::sink());
            said
        })
    });
    let ended = wait(&mut child, dns.timeout.0).map_err(|error| failed(error.to_string()))?;
    match ended {
        None => Err(failed(format!(
            "it did not end within {:?}, and was ended",
            dns.timeout.0
        ))),
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let said = said.and_then(|thread| thread.join().ok());
            let said = said.unwrap_or_default();
            Err(failed(format!("{status}: {}", said.trim())))
        }
    }
}

/// Waits for the end of a program. None if it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The lines `NAME=value` of the file, which nobody but its owner may have rights to.
fn environment(dns: &AcmeDnsChallenge) -> Result<Vec<(String, String)>, DnsChallengeError> {
    let Some(file) = &dns.environment_file else {
        return Ok(Vec::new());
    };
    let wrong = |reason: String| DnsChallengeError::Environment {
        file: file.clone(),
        reason,
    };
    let found = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?;
    if found.mode() & 0o077 != 0 {
        let reason = "others than its owner have rights to it; expected mode 0600";
        return Err(wrong(reason.to_owned()));
    }
    let text = read_regular(file).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let lines = text.lines().map(str::trim);
    let given = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = given.map(|line| {
        let pair = line.split_once('=');
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| wrong("a line is not of the form NAME=value".to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::units::ConfigDuration;

    fn challenge(script: &str) -> AcmeDnsChallenge {
        AcmeDnsChallenge {
            exec: vec![
                "sh".to_owned(),
                "-c".to_owned(),
                script.to_owned(),
                "hook".to_owned(),
            ],
            environment_file: None,
            timeout: ConfigDuration::secs(60),
            propagation: ConfigDuration::secs(1),
            resolvers: Vec::new(),
        }
    }

    fn record() -> StoredDnsRecord {
        StoredDnsRecord {
            name: "n".to_owned(),
            text: "t".to_owned(),
        }
    }

    #[test]
    fn a_program_gets_its_arguments_and_no_other_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("env"), dir.path().join("out"));
        std::fs::write(&file, format!("# a key\nKEY=a=b\nOUT={}\n", out.display())).unwrap();
        let mut dns = challenge("echo \"$1 $2 $3 $KEY ${CARGO_MANIFEST_DIR-none}\" > \"$OUT\"");
        dns.environment_file = Some(file.clone());
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&file, open).unwrap();
        let refused = run(&dns, DnsChange::Present, &record()).unwrap_err();
        assert!(
            refused.to_string().contains("expected mode 0600"),
            "{refused}"
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        run(&dns, DnsChange::Cleanup, &record()).unwrap();
        assert_eq!(
            std::fs::read_to_string(out).unwrap(),
            "cleanup n t a=b none\n"
        );
    }

    #[test]
    fn what_a_program_says_is_told_and_one_that_hangs_is_ended() {
        let failing = challenge("echo no such zone >&2; exit 3");
        let error = run(&failing, DnsChange::Present, &record())
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3: no such zone"), "{error}");
        let mut hanging = challenge("exec sleep 600");
        hanging.timeout = ConfigDuration::millis(50);
        let error = run(&hanging, DnsChange::Present, &record())
            .unwrap_err()
            .to_string();
        assert!(error.contains("did not end within 50ms"), "{error}");
    }
}
