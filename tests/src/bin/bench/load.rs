//! Load by `wrk`, and what it cost the server.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::options::Options;
use crate::peers::{Kind, OTHER_CORE};
use e2e::process::{Server, pinned};

const CONNECTIONS: usize = 64;
/// The octets of the page.
const PAGE: usize = 1_024;
const HIT_TARGET: &str = "/bench?id=1&utm_source=letter";

/// One measurement of one server.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Server CPU (user and system) a request, in microseconds.
    pub cpu_micros: f64,
    pub per_second: f64,
    /// In milliseconds.
    pub p99: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} µs CPU, {:.0}/s, p99 {:.2} ms",
            self.cpu_micros, self.per_second, self.p99
        )
    }
}

/// One page, over and over.
pub fn hits(server: &Server, options: &Options) -> anyhow::Result<Sample> {
    let url = format!("http://{}{HIT_TARGET}", server.address);
    for _ in 0..3 {
        fetch(server)?;
    }
    wrk(&url, 1, &[])?;
    measure(server, || wrk(&url, options.seconds, &[]))
}

/// The same over TLS, on connections that are kept.
pub fn secured_hits(server: &Server, kind: Kind, options: &Options) -> anyhow::Result<Sample> {
    let url = url_of(server, kind);
    fetch_by_curl(&url)?;
    wrk(&url, 1, &[])?;
    measure(server, || wrk(&url, options.seconds, &[]))
}

/// The same over HTTP/2: four connections with sixteen streams each.
pub fn multiplexed_hits(server: &Server, kind: Kind, options: &Options) -> anyhow::Result<Sample> {
    let url = url_of(server, kind);
    fetch_by_curl(&url)?;
    h2load(&url, 1)?;
    measure(server, || h2load(&url, options.seconds))
}

/// The same over HTTP/3.
pub fn quic_hits(
    server: &Server,
    kind: Kind,
    work: &Path,
    options: &Options,
) -> anyhow::Result<Sample> {
    fetch_by_curl(&url_of(server, kind))?;
    let authority = work.join(kind.name()).join("ca.pem");
    h3load(server, &authority, 1)?;
    measure(server, || h3load(server, &authority, options.seconds))
}

/// A new connection with a full handshake for each request.
pub fn handshakes(server: &Server, kind: Kind, options: &Options) -> anyhow::Result<Sample> {
    let url = url_of(server, kind);
    fetch_by_curl(&url)?;
    let closing = ["-H", "Connection: close"];
    measure(server, || wrk(&url, options.seconds, &closing))
}

fn url_of(server: &Server, kind: Kind) -> String {
    match kind.key() {
        // The certificate is for this name, and another host would be refused.
        Some(_) => format!("https://localhost:{}{HIT_TARGET}", server.address.port()),
        None => format!("http://{}{HIT_TARGET}", server.address),
    }
}

/// A page of its own for every request.
pub fn misses(server: &Server, work: &Path, options: &Options) -> anyhow::Result<Sample> {
    unique("GET", server, work, options)
}

/// A URL of its own is purged by every request.
pub fn purges(server: &Server, work: &Path, options: &Options) -> anyhow::Result<Sample> {
    unique("PURGE", server, work, options)
}

fn unique(method: &str, server: &Server, work: &Path, options: &Options) -> anyhow::Result<Sample> {
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

fn measure(server: &Server, load: impl Fn() -> anyhow::Result<Ran>) -> anyhow::Result<Sample> {
    let before = server.cpu();
    let ran = load()?;
    let spent = server.cpu().saturating_sub(before);
    if ran.requests == 0 {
        bail!("no request was answered");
    }
    Ok(Sample {
        cpu_micros: spent.as_secs_f64() * 1e6 / ran.requests as f64,
        per_second: ran.per_second,
        p99: ran.p99,
    })
}

/// What wrk reports.
struct Ran {
    requests: u64,
    per_second: f64,
    p99: f64,
}

fn h2load(url: &str, seconds: u64) -> anyhow::Result<Ran> {
    let duration = seconds.to_string();
    let output = pinned(OTHER_CORE, "h2load")
        .args(["-t1", "-c4", "-m16", "-D", &duration, url])
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
        (Some(requests), _, Some(content)) if (content as f64) < requests * PAGE as f64 => {
            bail!("{requests} answers had {content} octets of content");
        }
        (Some(requests), Some(per_second), Some::<u64>(_)) => Ok(Ran {
            requests: requests as u64,
            per_second,
            p99: f64::NAN,
        }),
        _ => bail!("h2load's report was not understood:\n{text}"),
    }
}

fn h3load(server: &Server, authority: &Path, seconds: u64) -> anyhow::Result<Ran> {
    let this = std::env::current_exe().context("the path of this program")?;
    let this = this.to_str().context("its path is not UTF-8")?;
    let output = pinned(OTHER_CORE, this)
        .arg("h3load")
        .arg(server.address.to_string())
        .arg(authority)
        .args([HIT_TARGET, &seconds.to_string(), "4", "16"])
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
        Some((requests, per_second)) => Ok(Ran {
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

fn wrk(url: &str, seconds: u64, more: &[&str]) -> anyhow::Result<Ran> {
    let mut command = pinned(OTHER_CORE, "wrk");
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

fn parse(text: &str) -> Option<Ran> {
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
    Some(Ran {
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
