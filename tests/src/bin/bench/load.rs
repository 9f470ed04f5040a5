//! Load by `wrk`, and what it cost the server.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::options::BenchOptions;
use crate::peers::{MeasuredServer, OTHER_CORE};
use e2e::debian13;
use e2e::process::{Server, pinned};

const CONNECTIONS: usize = 64;
/// A page of the origin.
#[derive(Clone, Copy)]
pub struct BenchPage {
    pub target: &'static str,
    pub octets: usize,
}

/// The page of most measurements.
pub const SMALL: BenchPage = BenchPage {
    target: "/bench?id=1&utm_source=letter",
    octets: 1_024,
};
/// A body of 64 MiB.
pub const LARGE: BenchPage = BenchPage {
    target: "/large",
    octets: 64 << 20,
};
const PAGE: usize = SMALL.octets;
const HIT_TARGET: &str = SMALL.target;

/// How many requests there are at a time over HTTP/2 and HTTP/3.
#[derive(Clone, Copy)]
pub struct LoadConcurrency {
    pub connections: &'static str,
    /// `new`: each request has a connection of its own.
    pub streams: &'static str,
}

/// Four connections with sixteen streams each.
pub const FOUR_BY_SIXTEEN: LoadConcurrency = LoadConcurrency {
    connections: "4",
    streams: "16",
};
/// One request at a time.
pub const ONE: LoadConcurrency = LoadConcurrency {
    connections: "1",
    streams: "1",
};
/// Sixteen connections at a time, one request each.
pub const NEW_CONNECTIONS: LoadConcurrency = LoadConcurrency {
    connections: "16",
    streams: "new",
};

/// One measurement of one server.
#[derive(Clone, Copy, Debug)]
pub struct ServerSample {
    /// Server CPU (user and system) a request, in microseconds.
    pub cpu_micros: f64,
    pub per_second: f64,
    /// In milliseconds.
    pub p99: f64,
}

impl fmt::Display for ServerSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} µs CPU, {:.0}/s, p99 {:.2} ms",
            self.cpu_micros, self.per_second, self.p99
        )
    }
}

/// One page, over and over.
pub fn hits(server: &Server, options: &BenchOptions) -> anyhow::Result<ServerSample> {
    hits_with(server, &[], options)
}

/// Fields to which each of a route's rules has something to do.
const FOR_RULES: [&str; 6] = [
    "-H",
    "Cookie: _ga=1; a=2",
    "-H",
    "Accept-Language: de, en;q=0.5",
    "-H",
    "Origin: https://app.example",
];

/// One page, over and over, by requests with cookies, languages and an origin.
pub fn ruled_hits(
    server: &Server,
    kind: MeasuredServer,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let coded = ["-H", "Accept-Encoding: gzip"];
    let more = match kind {
        MeasuredServer::LaminaRulesGzip => &coded[..],
        _ => &[],
    };
    hits_with(server, &[&FOR_RULES[..], more].concat(), options)
}

fn hits_with(
    server: &Server,
    fields: &[&str],
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let url = format!("http://{}{HIT_TARGET}", server.address);
    for _ in 0..3 {
        fetch(server)?;
    }
    wrk(&url, 1, fields)?;
    measure(server, || wrk(&url, options.seconds, fields))
}

/// The same over TLS, on connections that are kept.
pub fn secured_hits(
    server: &Server,
    kind: MeasuredServer,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let url = url_of(server, kind);
    fetch_by_curl(&url)?;
    wrk(&url, 1, &[])?;
    measure(server, || wrk(&url, options.seconds, &[]))
}

/// The same over HTTP/2: four connections with sixteen streams each.
pub fn multiplexed_hits(
    server: &Server,
    kind: MeasuredServer,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    fetch_by_curl(&url_of(server, kind))?;
    http2(server, (SMALL, FOUR_BY_SIXTEEN), options)
}

/// A page over HTTP/2.
pub fn http2(
    server: &Server,
    (page, at_a_time): (BenchPage, LoadConcurrency),
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let url = format!("https://localhost:{}{}", server.address.port(), page.target);
    h2load(&url, (page, at_a_time), 1)?;
    measure(server, || h2load(&url, (page, at_a_time), options.seconds))
}

/// A page over HTTP/3.
pub fn http3(
    server: &Server,
    (page, at_a_time): (BenchPage, LoadConcurrency),
    authority: &Path,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    h3load(server, (page, at_a_time), authority, 1)?;
    measure(server, || {
        h3load(server, (page, at_a_time), authority, options.seconds)
    })
}

/// Which wrk makes new connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HandshakeClient {
    /// That of the system, whose OpenSSL agrees on X25519.
    Usual,
    /// That of Debian 13, whose OpenSSL 3.5 asks for X25519MLKEM768.
    PostQuantum,
}

/// A new connection with a full handshake for each request.
pub fn handshakes(
    server: &Server,
    kind: MeasuredServer,
    client: HandshakeClient,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let url = url_of(server, kind);
    fetch_by_curl(&url)?;
    let closing = ["-H", "Connection: close"];
    match client {
        HandshakeClient::Usual => measure(server, || wrk(&url, options.seconds, &closing)),
        HandshakeClient::PostQuantum => {
            let program = debian13::program("bin/wrk")?;
            measure(server, || {
                let mut command = pinned(OTHER_CORE, &program.loader);
                command.args(&program.arguments);
                wrk_by(command, &url, options.seconds, &closing)
            })
        }
    }
}

fn url_of(server: &Server, kind: MeasuredServer) -> String {
    match kind.key() {
        // The certificate is for this name, and another host would be refused.
        Some(_) => format!("https://localhost:{}{HIT_TARGET}", server.address.port()),
        None => format!("http://{}{HIT_TARGET}", server.address),
    }
}

/// Touches more memory than a cache fills in one measurement, and frees it again. A virtual machine
/// gets a page from its host when it is touched for the first time, which may take a hundred times
/// as long as to clear it: a server whose cache grows would be charged for that, and one that has
/// touched all of its cache when it started would not.
pub fn have_memory_given() {
    const BYTES: usize = 1 << 30;
    const PAGE_BYTES: usize = 4096;
    let mut memory = vec![0_u8; BYTES];
    memory
        .iter_mut()
        .step_by(PAGE_BYTES)
        .for_each(|octet| *octet = 1);
    std::hint::black_box(&memory);
}

/// A page of its own for every request.
pub fn misses(
    server: &Server,
    work: &Path,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    unique("GET", server, work, options)
}

/// A URL of its own is purged by every request.
pub fn purges(
    server: &Server,
    work: &Path,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    unique("PURGE", server, work, options)
}

fn unique(
    method: &str,
    server: &Server,
    work: &Path,
    options: &BenchOptions,
) -> anyhow::Result<ServerSample> {
    let script = work.join("unique.lua");
    // The start time keeps a second run over the same cache from hitting.
    let lua = format!(
        "local n = 0\nlocal start = os.time() .. '-' .. math.floor(os.clock() * 1e6)\n\
         request = function()\n  n = n + 1\n  return wrk.format('{method}', '/page/' .. start .. '/' .. n)\nend\n"
    );
    std::fs::write(&script, lua).context("the wrk script")?;
    fetch(server)?;
    let url = format!("http://{}/", server.address);
    let script = script.to_str().context("the script's path is not UTF-8")?;
    measure(server, || wrk(&url, options.seconds, &["-s", script]))
}

fn measure(
    server: &Server,
    load: impl Fn() -> anyhow::Result<WrkResult>,
) -> anyhow::Result<ServerSample> {
    let before = server.cpu();
    let ran = load()?;
    let spent = server.cpu().saturating_sub(before);
    if ran.requests == 0 {
        bail!("no request was answered");
    }
    Ok(ServerSample {
        cpu_micros: spent.as_secs_f64() * 1e6 / ran.requests as f64,
        per_second: ran.per_second,
        p99: ran.p99,
    })
}

/// What wrk reports.
struct WrkResult {
    requests: u64,
    per_second: f64,
    p99: f64,
}

fn h2load(
    url: &str,
    (page, at_a_time): (BenchPage, LoadConcurrency),
    seconds: u64,
) -> anyhow::Result<WrkResult> {
    let duration = seconds.to_string();
    let output = pinned(OTHER_CORE, "h2load")
        .args(["-t1", "-c", at_a_time.connections, "-m", at_a_time.streams])
        // Windows of 16 MiB, as h3load has.
        .args(["-w", "24", "-W", "24", "-D", &duration, url])
        .output()
        .context("h2load (make bench-install installs it)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |line: &str, before: &str| -> Option<f64> {
        let line = text.lines().find(|found| found.starts_with(line))?;
        line.split(before)
            .next()?
            .split_whitespace()
            .last()?
            .parse()
            .ok()
    };
    let succeeded = number("requests:", " succeeded");
    let per_second = number("finished in", " req/s");
    let content = text
        .lines()
        .find(|line| line.starts_with("traffic:"))
        .and_then(|line| line.rsplit('(').next()?.split(')').next()?.parse().ok());
    match (succeeded, per_second, content) {
        // What is under way at the end has come in part.
        (Some(requests), _, Some(content)) if (content as f64) < requests * page.octets as f64 => {
            bail!("{requests} answers had {content} octets of content");
        }
        (Some(requests), Some(per_second), Some::<u64>(_)) => Ok(WrkResult {
            requests: requests as u64,
            per_second,
            p99: f64::NAN,
        }),
        _ => bail!("h2load's report was not understood:\n{text}"),
    }
}

fn h3load(
    server: &Server,
    (page, at_a_time): (BenchPage, LoadConcurrency),
    authority: &Path,
    seconds: u64,
) -> anyhow::Result<WrkResult> {
    let this = std::env::current_exe().context("the path of this program")?;
    let this = this.to_str().context("its path is not UTF-8")?;
    let output = pinned(OTHER_CORE, this)
        .arg("h3load")
        .arg(server.address.to_string())
        .arg(authority)
        .args([page.target, &page.octets.to_string(), &seconds.to_string()])
        .args([at_a_time.connections, at_a_time.streams])
        .output()
        .context("h3load")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text
        .split_once(" requests in ")
        .and_then(|(requests, rest)| {
            let requests: u64 = requests.parse().ok()?;
            let took: f64 = rest.split(' ').next()?.parse().ok()?;
            Some((requests, requests as f64 / took))
        });
    match numbers {
        Some((requests, per_second)) => Ok(WrkResult {
            requests,
            per_second,
            p99: f64::NAN,
        }),
        None => bail!(
            "h3load said: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// One request by curl, so that a server which answers wrongly is not measured.
fn fetch_by_curl(url: &str) -> anyhow::Result<()> {
    for _ in 0..3 {
        let mut curl = pinned(OTHER_CORE, "curl");
        let output = curl.args(["--silent", "--insecure", url]).output();
        let output = output.context("curl")?;
        if output.stdout != [b'x'; PAGE] {
            bail!("answered {:?}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(())
}

fn wrk(url: &str, seconds: u64, more: &[&str]) -> anyhow::Result<WrkResult> {
    wrk_by(pinned(OTHER_CORE, "wrk"), url, seconds, more)
}

fn wrk_by(
    mut command: Command,
    url: &str,
    seconds: u64,
    more: &[&str],
) -> anyhow::Result<WrkResult> {
    command.args([
        "-t1",
        &format!("-c{CONNECTIONS}"),
        &format!("-d{seconds}s"),
        "--latency",
    ]);
    let output = command
        .args(more)
        .arg(url)
        .output()
        .context("wrk (make bench-install installs it)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "wrk ended with {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if let Some(line) = text
        .lines()
        .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
    {
        bail!("wrk saw errors: {}", line.trim());
    }
    parse(&text).with_context(|| format!("wrk's report was not understood:\n{text}"))
}

fn parse(text: &str) -> Option<WrkResult> {
    let line = |mark: &str| text.lines().map(str::trim).find(|line| line.contains(mark));
    let requests = line(" requests in ")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let per_second = line("Requests/sec:")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    let p99 = milliseconds(line("99%")?.split_whitespace().nth(1)?)?;
    Some(WrkResult {
        requests,
        per_second,
        p99,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<f64>().ok();
    number("us")
        .map(|us| us / 1e3)
        .or_else(|| number("ms"))
        .or_else(|| number("s").map(|s| s * 1e3))
}

/// One request by hand, so that a server which answers wrongly is not measured.
fn fetch(server: &Server) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {HIT_TARGET} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address
    )?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(&[b'x'; PAGE]) {
        let n = stream
            .read(&mut piece)
            .context("the server's first answer")?;
        if n == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..n]);
    }
    let _ = stream.shutdown(Shutdown::Both);
    if !seen.starts_with(b"HTTP/1.1 200") || !seen.ends_with(&[b'x'; PAGE]) {
        bail!(
            "answered {:?}",
            String::from_utf8_lossy(&seen[..seen.len().min(200)])
        );
    }
    Ok(())
}
