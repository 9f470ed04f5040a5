//! The real binary as a process, from YAML in a folder of its own.
//!
//! Starting waits until it has said where it listens and `/readyz` agrees.
//! Dropping kills it; the log is shown when the test has failed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli;
use crate::client::Client;
use crate::metrics::Scrape;
use crate::places::{PLACES, Place};
use crate::raw::RawConnection;
use crate::wait::{SOON, wait_for, wait_until};

/// A running gateway.
pub struct Gateway {
    process: Child,
    log: Log,
    /// The first listener.
    pub address: SocketAddr,
    /// Where it has a Unix socket instead, 0.0.0.0:0.
    pub admin: SocketAddr,
    /// The Unix socket of the admin listener, where it has one.
    pub admin_socket: Option<PathBuf>,
    admin_client: legacy::Client<HttpConnector, Full<bytes::Bytes>>,
    token: Option<String>,
    dir: TempDir,
    /// Processes that have taken its place, one after the other.
    pub(crate) successors: Mutex<Vec<u32>>,
    _place: Place,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// A status and a body from the admin listener.
#[derive(Debug)]
pub struct AdminAnswer {
    pub status: u16,
    pub text: String,
}

/// A gateway that ended instead of getting ready.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i32>,
    pub log: String,
}

impl Gateway {
    /// Starts it with the file `config` in `dir`; panics with its log if it does not get ready.
    pub async fn start(dir: TempDir, config: &Path, environment: &[(String, String)]) -> Self {
        match Self::try_start(dir, config, environment).await {
            Ok(gateway) => gateway,
            Err(refused) => panic!(
                "lamina ended with {:?} instead of getting ready:\n{}",
                refused.code, refused.log
            ),
        }
    }

    /// Starts it; `Err` when the process ends before it is ready.
    pub async fn try_start(
        dir: TempDir,
        config: &Path,
        environment: &[(String, String)],
    ) -> Result<Self, Refused> {
        let place = PLACES.take().await;
        let mut process = spawn(config, environment);
        let log = Log::default();
        log.follow(process.stdout.take().expect("stdout is piped"));
        log.follow(process.stderr.take().expect("stderr is piped"));
        let mut found = None;
        wait_until("lamina says where it listens, or ends", SOON * 2, || {
            found = log.addresses();
            found.is_some() || process.try_wait().is_ok_and(|ended| ended.is_some())
        })
        .await;
        let Some((address, admin, admin_socket)) = found else {
            let code = process.wait().ok().and_then(|status| status.code());
            log.settled().await;
            return Err(Refused {
                code,
                log: log.text(),
            });
        };
        let admin_client =
            legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let gateway = Self {
            process,
            log,
            address,
            admin,
            admin_socket,
            admin_client,
            token: None,
            dir,
            successors: Mutex::default(),
            _place: place,
        };
        wait_for("/readyz says ready", SOON, || gateway.ready()).await;
        Ok(gateway)
    }

    /// The token for the admin listener.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// An HTTP/1.1 client.
    pub fn client(&self) -> Client {
        Client::http1(self.address)
    }

    /// An HTTP/2 client.
    pub fn client_http2(&self) -> Client {
        Client::http2(self.address)
    }

    /// Where its listeners are, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.log()
            .iter()
            .filter_map(|line| listening_on(line))
            .collect()
    }

    /// A socket to write bytes on.
    pub async fn raw(&self) -> RawConnection {
        RawConnection::open(self.address).await
    }

    /// Every log line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits for a log line that `wanted` accepts.
    pub async fn logged(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        wait_for(what, SOON, || async {
            self.log().into_iter().find(|line| wanted(line))
        })
        .await
    }

    /// The folder of its YAML.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory of its current process in bytes, from the kernel.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// The most that was resident since the start, or since [`forget_peak`](Self::forget_peak).
    pub fn peak_bytes(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    /// Makes what is resident now the most that was.
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.current_process());
        std::fs::write(path, "5").expect("the kernel resets the peak of a child of ours");
    }

    fn memory_of(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.current_process()))
            .unwrap_or_default();
        let line = status.lines().find(|known| known.starts_with(line));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    }

    /// Open descriptors, from the kernel.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.current_process()))
            .map_or(0, |entries| entries.count())
    }

    /// Asks the admin listener.
    pub async fn admin(&self, method: Method, path: &str, body: &str) -> AdminAnswer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let response = match &self.admin_socket {
            Some(path) => over_socket(path, request).await,
            None => self.admin_client.request(request).await.ok(),
        };
        let response = response.expect("the admin listener answers");
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("the admin's body is whole")
            .to_bytes();
        AdminAnswer {
            status,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// Purges; panics unless it was acknowledged. Answers the receipt.
    pub async fn purge(&self, selector: Value) -> Value {
        let body = selector.to_string();
        let answer = wait_for("the admin listener has a place", SOON, || async {
            let answer = self.admin(Method::POST, "/v1/purge", &body).await;
            (answer.status != 503).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 200, "purge {selector}: {}", answer.text);
        serde_json::from_str(&answer.text)
            .unwrap_or_else(|error| panic!("{error} in {}", answer.text))
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::parse(&self.admin(Method::GET, "/metrics", "").await.text)
    }

    /// The sum of the series with this name and these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.scrape().await.sum(name, labels)
    }

    /// Waits until a metric fulfils `holds`.
    pub async fn metric_until(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        holds: impl Fn(f64) -> bool,
    ) {
        let what = format!("{name}{labels:?} is as it should be");
        wait_for(&what, SOON, || async {
            holds(self.metric(name, labels).await).then_some(())
        })
        .await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// SIGSTOP: connections stand, answers never come.
    pub fn freeze(&self) {
        crate::process::freeze(self.process.id());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        crate::process::thaw(self.process.id());
    }

    /// Waits for the process to end.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        let process = &mut self.process;
        wait_until("lamina ends", limit, || {
            status = process.try_wait().ok().flatten();
            status.is_some()
        })
        .await;
        status.expect("the wait ended with a status")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|ended| ended.is_none())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.process.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process(id.expect("a process has an id"), signal);
    }

    async fn ready(&self) -> Option<()> {
        (self.admin(Method::GET, "/readyz", "").await.status == 200).then_some(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.end_successors();
        if std::thread::panicking() {
            let log = self
                .log
                .0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let from = log.len().saturating_sub(60);
            eprintln!(
                "--- the gateway's last log lines\n{}\n---",
                log[from..].join("\n")
            );
        }
    }
}

impl Log {
    /// Collects lines in a thread of its own until the pipe closes.
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(line);
            }
            // The thread's clone of the log goes with it: `settled` waits for that.
        });
    }

    /// Waits until both pipes are read to their end.
    async fn settled(&self) {
        wait_until("the log is complete", SOON, || {
            Arc::strong_count(&self.0) == 1
        })
        .await;
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// The first listener's and the admin's address or socket, once both are logged.
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr, Option<PathBuf>)> {
        let lines = self.0.lock().unwrap();
        let after = |words: &str| lines.iter().find_map(|line| address_after(line, words));
        let address = lines.iter().find_map(|line| listening_on(line))?;
        if let Some(admin) = after("lamina admin on http://") {
            return Some((address, admin, None));
        }
        let words = "lamina admin on unix:";
        let socket = lines.iter().find_map(|line| {
            let rest = &line[line.find(words)? + words.len()..];
            rest.split('"').next().map(PathBuf::from)
        })?;
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        Some((address, none, Some(socket)))
    }
}

/// Asks over a Unix socket; none when there is no answer.
async fn over_socket(
    path: &Path,
    request: Request<Full<bytes::Bytes>>,
) -> Option<http::Response<Incoming>> {
    let stream = tokio::net::UnixStream::connect(path).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    head.uri = head.uri.path_and_query()?.as_str().parse().ok()?;
    head.headers.insert("host", "admin".parse().ok()?);
    sender
        .send_request(Request::from_parts(head, body))
        .await
        .ok()
}

fn spawn(config: &Path, environment: &[(String, String)]) -> Child {
    Command::new(cli::binary())
        .arg("run")
        .arg("-c")
        .arg(config)
        .env("NO_COLOR", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lamina starts")
}

/// The address of a listener that a log line tells.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let words = [
        "lamina listening on http://",
        "lamina listening on https://",
    ];
    words.iter().find_map(|words| address_after(line, words))
}

/// The address that follows `words` in a log line of any form.
fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(words)? + words.len()..];
    let end = rest
        .find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::address_after;

    #[test]
    fn an_address_is_found_in_text_and_in_json() {
        let words = "lamina listening on http://";
        let wanted = Some("127.0.0.1:4711".parse().unwrap());
        assert_eq!(
            address_after("INFO lamina listening on http://127.0.0.1:4711", words),
            wanted
        );
        assert_eq!(
            address_after(
                r#"{"message":"lamina listening on http://127.0.0.1:4711"}"#,
                words
            ),
            wanted
        );
        assert_eq!(address_after("nothing here", words), None);
    }
}
