//! Markdown tables of what was measured.

use std::fmt::Write as _;

use crate::load::ServerSample;
use crate::options::BenchOptions;
use crate::peers::MeasuredServer;

/// All measurements of one server.
pub struct ServerRow {
    pub kind: MeasuredServer,
    pub samples: Vec<ServerSample>,
    /// Why it is left out.
    pub problem: Option<String>,
}

impl ServerRow {
    pub fn new(kind: MeasuredServer) -> Self {
        Self {
            kind,
            samples: Vec::new(),
            problem: None,
        }
    }

    /// The round with the least CPU a request.
    fn best(&self) -> Option<&ServerSample> {
        self.samples
            .iter()
            .min_by(|a, b| a.cpu_micros.total_cmp(&b.cpu_micros))
    }

    fn most(&self) -> f64 {
        self.samples
            .iter()
            .map(|sample| sample.cpu_micros)
            .fold(0.0, f64::max)
    }
}

/// Hits, as multiples of the floor.
pub fn hits(rows: &[ServerRow], options: &BenchOptions) -> String {
    table("1 KiB hit", "floor", rows, MeasuredServer::Floor, options)
}

/// Hits on a route with all traffic rules, as multiples of the same requests on one without.
pub fn ruled(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "1 KiB hit on a route with all traffic rules";
    table(title, "no rules", rows, MeasuredServer::Lamina, options)
}

/// Hits over TLS on kept connections, as multiples of clear text.
pub fn secured(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "1 KiB hit over TLS, HTTP/1.1";
    table(title, "lamina", rows, MeasuredServer::Lamina, options)
}

/// Hits over TLS and HTTP/2, as multiples of HAProxy.
pub fn multiplexed(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "1 KiB hit over TLS, HTTP/2 (h2load, 4 connections with 16 streams)";
    table(title, "haproxy", rows, MeasuredServer::HaproxyTls, options)
}

/// Hits over HTTP/3, as multiples of ours over HTTP/2.
pub fn quic(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "1 KiB hit, HTTP/2 (h2load) and HTTP/3 (h3load), 4 connections with 16 streams";
    table(title, "HTTP/2", rows, MeasuredServer::LaminaTls, options)
}

/// A body of 64 MiB over HTTP/3, as a multiple of the same over HTTP/2.
pub fn large_bodies(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "64 MiB hit, one at a time, HTTP/2 (h2load) and HTTP/3 (h3load)";
    table(title, "HTTP/2", rows, MeasuredServer::LaminaTls, options)
}

/// New connections over HTTP/3, as multiples of nginx.
pub fn quic_connections(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "New QUIC connection and a 1 KiB hit (h3load, 16 at a time)";
    table(title, "nginx", rows, MeasuredServer::NginxHttp3, options)
}

/// New connections with the hybrid key agreement.
pub fn hybrid_handshakes(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "New TLS 1.3 connection with X25519MLKEM768 and a 1 KiB hit";
    table(title, "P-256", rows, MeasuredServer::LaminaTls, options)
}

/// New connections, as multiples of HAProxy with the same curve.
pub fn handshakes(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "New TLS 1.3 connection and a 1 KiB hit";
    table(title, "haproxy", rows, MeasuredServer::HaproxyTls, options)
}

/// Misses, as multiples of nginx.
pub fn misses(rows: &[ServerRow], options: &BenchOptions) -> String {
    table(
        "1 KiB miss, proxied and stored",
        "nginx",
        rows,
        MeasuredServer::Nginx,
        options,
    )
}

/// Purges, as multiples of one without a bus.
pub fn purges(rows: &[ServerRow], options: &BenchOptions) -> String {
    let title = "One URL purged (`PURGE`)";
    table(title, "lamina", rows, MeasuredServer::Lamina, options)
}

fn table(
    title: &str,
    unit: &str,
    rows: &[ServerRow],
    base: MeasuredServer,
    options: &BenchOptions,
) -> String {
    let mut text = format!(
        "### {title}\n\nOne worker on one core, wrk with 64 connections on another; least of {} rounds of {} s.\n\n\
         | server | CPU µs a request | most | × {unit} | requests/s | p99 ms |\n|---|---|---|---|---|---|\n",
        options.rounds, options.seconds
    );
    let base = rows
        .iter()
        .find(|row| row.kind == base)
        .and_then(ServerRow::best)
        .map(|sample| sample.cpu_micros);
    for row in rows {
        let name = row.kind.name();
        let _ = match (row.best(), &row.problem) {
            (Some(best), _) => {
                let times = base.map_or("–".to_owned(), |base| {
                    format!("{:.2}", best.cpu_micros / base)
                });
                let ServerSample {
                    cpu_micros,
                    per_second,
                    p99,
                } = best;
                let most = row.most();
                writeln!(
                    text,
                    "| {name} | {cpu_micros:.2} | {most:.2} | {times} | {per_second:.0} | {p99:.2} |"
                )
            }
            (None, problem) => {
                let why = problem
                    .as_deref()
                    .unwrap_or("not run")
                    .replace(['|', '\n'], " ");
                writeln!(text, "| {name} | left out: {why} | | | | |")
            }
        };
    }
    text
}
