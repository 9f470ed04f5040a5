//! `bench_neighbours [SECONDS] [ROUNDS]`: what requests cost while their neighbours do what is dear.
//!
//! A gateway with one worker is on core 0; clients and origin are on the other. A client asks for a
//! page at a steady rate ([`prober`]): alone first, then beside others. Hits stand beside full
//! handshakes of TLS 1.3 at a rate ([`handshakes`]) and beside misses whose answers are compressed
//! ([`misses`]), which come from a process of their own that gives way to the client that measures
//! ([`flood`]); requests that are never stored stand beside clients that read large bodies slowly, of
//! the same upstream over one connection of HTTP/2 ([`readers`]). At last, what a password costs
//! ([`passwords`]). Prints Markdown.

// A panic here is a bench that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod flood;
mod handshakes;
mod misses;
mod pages;
mod passwords;
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

use flood::{FloodRate, RunningFlood};
use handshakes::HandshakeFlood;
use prober::{ProbeLatencies, probe};
use report::NeighbourRow;

/// How it is called.
const USAGE: &str = "bench_neighbours [SECONDS] [ROUNDS]";
/// The names of the site: with a certificate for P-256, and with one for RSA-4096.
const NAME: &str = "a.example";
const RSA_NAME: &str = "rsa.example";
/// The core of the gateway, and that of everybody else.
const GATEWAY_CORE: &str = "0";
const OTHER_CORE: &str = "1";

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
        return flood::run(rest);
    }
    let number = |nth: usize, usual| match arguments.get(nth) {
        Some(given) => given.parse().context(USAGE),
        None => Ok(usual),
    };
    let (span, rounds) = (Duration::from_secs(number(0, 10)?), number(1, 3)?);
    pin(std::process::id(), OTHER_CORE);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!("{}", beside_handshakes(span, rounds).await?);
        println!("{}", beside_misses(span, rounds).await?);
        println!("{}", beside_readers(span, rounds).await);
        println!("{}", passwords::cost(span, rounds).await);
        Ok(())
    })
}

/// Puts all threads of a process on a core.
fn pin(process: u32, core: &str) {
    // Where there is no such program the machine's own choice counts.
    let _ = Command::new("taskset")
        .args(["-a", "-c", "-p", core, &process.to_string()])
        .output();
}

/// Puts all threads of the gateway on its core.
fn pin_gateway(gateway: &Gateway) {
    pin(gateway.process_id(), GATEWAY_CORE);
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
    pin_gateway(&gateway);
    let mut rows = FLOODS.map(|(what, _)| NeighbourRow::new(what));
    for _ in 0..rounds {
        for (row, (_, wanted)) in rows.iter_mut().zip(FLOODS) {
            let address = gateway.address.to_string();
            let flooding = wanted.map(|HandshakeFlood { name, per_second }| {
                let rate = FloodRate { per_second, span };
                flood::begin("handshakes", &[&address, name], rate)
            });
            let flooding = flooding.transpose()?;
            let seen = probe(prober::ProbeWay::Tls(gateway.address), "/hit", span).await;
            let made = flooding.map(RunningFlood::made).transpose()?;
            row.add(seen, made.map(|made| made as f64 / span.as_secs_f64()));
        }
    }
    Ok(report::handshakes(&rows, span, rounds))
}

async fn beside_misses(span: Duration, rounds: u64) -> anyhow::Result<String> {
    let (_origin, gateway) = misses::gateway().await;
    pin_gateway(&gateway);
    let address = gateway.address.to_string();
    let floods = [
        ("nothing", None),
        ("1,000 misses/s of 16 KiB", Some("/plain")),
        ("the same, compressed", Some("/packed")),
    ];
    let mut rows = floods.map(|(what, _)| NeighbourRow::new(what));
    for _ in 0..rounds {
        for (row, (_, path)) in rows.iter_mut().zip(floods) {
            let rate = FloodRate {
                per_second: 1_000,
                span,
            };
            let flooding = path.map(|path| flood::begin("misses", &[&address, path], rate));
            let flooding = flooding.transpose()?;
            let seen = probe(prober::ProbeWay::Clear(gateway.address), "/hit", span).await;
            let made = flooding.map(RunningFlood::made).transpose()?;
            row.add(seen, made.map(|made| made as f64 / span.as_secs_f64()));
        }
    }
    Ok(report::misses(&rows, span, rounds))
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
    pin_gateway(&gateway);
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
