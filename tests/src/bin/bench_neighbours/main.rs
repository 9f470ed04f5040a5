//! `bench_neighbours [SECONDS] [ROUNDS]`: what requests cost while their neighbours do what is dear.
//!
//! A gateway with one worker is on core 0; clients and origin are on the other. A client asks for a
//! page at a steady rate ([`prober`]): alone first, then beside others. Hits stand beside full
//! handshakes of TLS 1.3 at a rate ([`handshakes`], in a process of its own that gives way to the
//! client that measures); requests that are never stored stand beside clients that read large bodies
//! slowly, of the same upstream over one connection of HTTP/2 ([`readers`]). Prints Markdown.

// A panic here is a bench that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod handshakes;
mod prober;
mod readers;
mod report;

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::authority::{Authority, KeyKind, Order};

use handshakes::{HandshakeFlood, flood};
use prober::{ProbeLatencies, probe};
use report::NeighbourRow;

/// How it is called.
const USAGE: &str = "bench_neighbours [SECONDS] [ROUNDS]";
/// The names of the site: with a certificate for P-256, and with one for RSA-4096.
const NAME: &str = "a.example";
const RSA_NAME: &str = "rsa.example";
/// The core of the gateway.
const CORE: &str = "0";

/// What stands beside hits.
const FLOODS: [(&str, Option<HandshakeFlood>); 4] = [
    ("nothing", None),
    (
        "2,000 handshakes/s, P-256",
        Some(HandshakeFlood {
            name: NAME,
            per_second: 2_000,
        }),
    ),
    (
        "20 handshakes/s, RSA-4096",
        Some(HandshakeFlood {
            name: RSA_NAME,
            per_second: 20,
        }),
    ),
    (
        "100 handshakes/s, RSA-4096",
        Some(HandshakeFlood {
            name: RSA_NAME,
            per_second: 100,
        }),
    ),
];

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("flood", rest)) = arguments
        .split_first()
        .map(|(first, rest)| (&first[..], rest))
    {
        return handshakes::run(rest);
    }
    let number = |nth: usize, usual| match arguments.get(nth) {
        Some(given) => given.parse().context(USAGE),
        None => Ok(usual),
    };
    let (span, rounds) = (Duration::from_secs(number(0, 10)?), number(1, 3)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!("{}", beside_handshakes(span, rounds).await?);
        println!("{}", beside_readers(span, rounds).await);
        Ok(())
    })
}

/// Puts all threads of the gateway on its core.
fn pin(gateway: &Gateway) {
    let process = gateway.process_id().to_string();
    // Where there is no such program the machine's own choice counts.
    let _ = Command::new("taskset")
        .args(["-a", "-c", "-p", CORE, &process])
        .output();
}

async fn beside_handshakes(span: Duration, rounds: u64) -> anyhow::Result<String> {
    let origin = Origin::pages(|_| Reply::fresh(vec![b'p'; 1_024])).await;
    let authority = Authority::new("bench");
    let certificates = "certificates: [{cert: a.crt, key: a.key}, {cert: rsa.crt, key: rsa.key}]";
    let rsa = Order::server(&[RSA_NAME]).key(KeyKind::Rsa4096);
    let gateway = Setup::new(&origin)
        .pair("a", &authority.server(&[NAME]))
        .pair("rsa", &authority.make(&rsa))
        .listener("tls", &format!("{{{certificates}}}"))
        .top("server", "{threads: 1}")
        .top("telemetry", "{access_log: off}")
        .start()
        .await;
    pin(&gateway);
    let mut rows = FLOODS.map(|(what, _)| NeighbourRow::new(what));
    for _ in 0..rounds {
        for (row, (_, wanted)) in rows.iter_mut().zip(FLOODS) {
            let flooding = wanted.map(|wanted| flood(gateway.address, wanted, span));
            let flooding = flooding.transpose()?;
            let seen = probe(prober::ProbeWay::Tls(gateway.address), "/hit", span).await;
            let made = flooding.map(handshakes::RunningFlood::made).transpose()?;
            row.add(seen, made.map(|made| made as f64 / span.as_secs_f64()));
        }
    }
    Ok(report::handshakes(&rows, span, rounds))
}

async fn beside_readers(span: Duration, rounds: u64) -> String {
    let origin = readers::origin(span).await;
    let gateway = Setup::default()
        .upstream(
            "origin",
            &format!("{{targets: [\"{}\"], protocol: http2}}", origin.url()),
        )
        .route("{name: site, upstream: origin, cache: off}")
        .top("server", "{threads: 1}")
        .top("telemetry", "{access_log: off}")
        .start()
        .await;
    pin(&gateway);
    let way = prober::ProbeWay::Clear(gateway.address);
    let (mut alone, mut beside) = (
        NeighbourRow::new("nothing"),
        NeighbourRow::new("8 readers of 16 KB/s"),
    );
    for _ in 0..rounds {
        alone.add(probe(way, "/page", span).await, None);
        let reading = readers::start(gateway.address);
        let seen: ProbeLatencies = probe(way, "/page", span).await;
        let per_second = reading.stop().await / span.as_secs_f64();
        beside.add(seen, Some(per_second));
    }
    report::readers(&[alone, beside], origin.connections(), span, rounds)
}
