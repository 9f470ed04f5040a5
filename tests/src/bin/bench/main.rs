//! `bench`: the whole-program comparison of `make bench`.
//!
//! Servers run in turn, several rounds, each with one worker on core 0; `wrk` and
//! the origin sit on the other core. What counts is the server's CPU time per
//! request (user and system, from /proc) and its ratio to [`floor`]; requests per
//! second and p99 stand beside it. Prints Markdown. Decision: the least of the
//! rounds is the figure, since other work on the machine only ever adds.
//!
//! [`floor`]: ../floor/index.html

mod h3load;
mod load;
mod options;
mod peers;
mod report;

use anyhow::Context;
use e2e::random::Random;

use load::{HandshakeClient, ServerSample};
use options::BenchOptions;
use peers::{BenchSurroundings, MeasuredServer};
use report::ServerRow;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("h3load", rest)) = arguments
        .split_first()
        .map(|(first, rest)| (&first[..], rest))
    {
        return h3load::run(rest);
    }
    let options = BenchOptions::from_arguments()?;
    let work = tempfile::tempdir().context("a folder for the servers' files")?;
    let beside = BenchSurroundings::start()?;
    let start = |kind| peers::start(kind, &beside, work.path(), &options);
    let hits = compare(MeasuredServer::HITS, &options, |kind| {
        load::hits(&start(kind)?, &options)
    });
    println!("{}", report::hits(&hits, &options));
    let ruled = compare(MeasuredServer::RULED, &options, |kind| {
        load::ruled_hits(&start(kind)?, kind, &options)
    });
    println!("{}", report::ruled(&ruled, &options));
    let secured = compare(MeasuredServer::SECURED, &options, |kind| {
        load::secured_hits(&start(kind)?, kind, &options)
    });
    println!("{}", report::secured(&secured, &options));
    let multiplexed = compare(MeasuredServer::MULTIPLEXED, &options, |kind| {
        load::multiplexed_hits(&start(kind)?, kind, &options)
    });
    println!("{}", report::multiplexed(&multiplexed, &options));
    let authority = |kind: MeasuredServer| work.path().join(kind.name()).join("ca.pem");
    let over = |kind: MeasuredServer, load| {
        let server = start(kind)?;
        match kind.speaks_http3() {
            true => load::http3(&server, load, &authority(kind), &options),
            false => load::http2(&server, load, &options),
        }
    };
    let small = (load::SMALL, load::FOUR_BY_SIXTEEN);
    let quic = compare(MeasuredServer::QUIC, &options, |kind| over(kind, small));
    println!("{}", report::quic(&quic, &options));
    let large = (load::LARGE, load::ONE);
    let bodies = compare(MeasuredServer::LARGE_BODIES, &options, |kind| {
        over(kind, large)
    });
    println!("{}", report::large_bodies(&bodies, &options));
    let new = (load::SMALL, load::NEW_CONNECTIONS);
    let begun = compare(MeasuredServer::QUIC_CONNECTIONS, &options, |kind| {
        over(kind, new)
    });
    println!("{}", report::quic_connections(&begun, &options));
    let handshakes = compare(MeasuredServer::HANDSHAKES, &options, |kind| {
        load::handshakes(&start(kind)?, kind, HandshakeClient::Usual, &options)
    });
    println!("{}", report::handshakes(&handshakes, &options));
    let hybrid = compare(MeasuredServer::HYBRID_HANDSHAKES, &options, |kind| {
        load::handshakes(&start(kind)?, kind, HandshakeClient::PostQuantum, &options)
    });
    println!("{}", report::hybrid_handshakes(&hybrid, &options));
    let misses = compare(MeasuredServer::MISSES, &options, |kind| {
        load::have_memory_given();
        load::misses(&start(kind)?, work.path(), &options)
    });
    println!("{}", report::misses(&misses, &options));
    let purges = compare(MeasuredServer::PURGES, &options, |kind| {
        load::purges(&start(kind)?, work.path(), &options)
    });
    println!("{}", report::purges(&purges, &options));
    Ok(())
}

/// Measures every server once a round, each round in another order by the random, since
/// the machine is not the same at each place of a round, nor behind each other server.
/// One that cannot run is named and left out.
fn compare(
    kinds: &[MeasuredServer],
    options: &BenchOptions,
    measure: impl Fn(MeasuredServer) -> anyhow::Result<ServerSample>,
) -> Vec<ServerRow> {
    let mut random = Random::new(u64::from(lamina_base::random::number()));
    let mut rows: Vec<ServerRow> = kinds
        .iter()
        .filter(|kind| options.wants(**kind))
        .map(|kind| ServerRow::new(*kind))
        .collect();
    for round in 1..=options.rounds {
        let mut order: Vec<&mut ServerRow> = rows.iter_mut().collect();
        random.shuffle(&mut order);
        for row in order {
            if row.problem.is_some() {
                continue;
            }
            match measure(row.kind) {
                Ok(sample) => {
                    eprintln!("round {round} {}: {sample}", row.kind.name());
                    row.samples.push(sample);
                }
                Err(problem) => {
                    eprintln!("round {round} {}: left out: {problem:#}", row.kind.name());
                    row.problem = Some(format!("{problem:#}"));
                }
            }
        }
    }
    rows
}
