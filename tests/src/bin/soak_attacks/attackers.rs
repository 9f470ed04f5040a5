//! Those that do not behave: the suites' attacks one after the other, in an order that
//! changes, some at once.

use std::net::SocketAddr;
use std::sync::Arc;

use e2e::attack::bytes::Case;
use e2e::attack::http3::QuicWay;
use e2e::attack::{
    Attack, held, http1 as heads, http1_bodies, http2 as malformed, http2_floods, http3, origin,
};
use e2e::client::Client;
use e2e::random::Random;
use http::Method;
use tokio::task::JoinSet;

use crate::report::AttackReport;
use crate::ways::AttackedGateway;

/// Starts them; they end when the set is dropped.
pub fn start(ways: &AttackedGateway, report: &Arc<AttackReport>) -> JoinSet<()> {
    let (http1, http2) = (ways.http1.address, ways.http2.address);
    let mut attackers = JoinSet::new();
    for seed in 0..2 {
        let random = Random::new(seed);
        attackers.spawn(bytes(http1, random.clone(), Arc::clone(report)));
        attackers.spawn(frames((http1, http2), random.clone(), Arc::clone(report)));
        if let Some(way) = ways.quic() {
            attackers.spawn(packets(way, random.clone(), Arc::clone(report)));
        }
        for client in ways.clients() {
            attackers.spawn(plays(client, random.clone(), Arc::clone(report)));
        }
    }
    attackers
}

/// Bytes on HTTP/1 connections.
async fn bytes(address: SocketAddr, mut random: Random, report: Arc<AttackReport>) {
    let all: Vec<Case> = heads::heads()
        .into_iter()
        .chain(http1_bodies::bodies())
        .collect();
    loop {
        let case = &all[random.below(all.len() as u64) as usize];
        let outcome = case.run(address).await;
        report.attacked(case.name, case.judge(&outcome).err());
    }
}

/// Frames on HTTP/2 connections, and clients that do not read. An attack that gets what it must not panics; in a task of
/// its own that ends nothing else, and the report hears of it.
async fn frames(
    (http1, http2): (SocketAddr, SocketAddr),
    mut random: Random,
    report: Arc<AttackReport>,
) {
    let tables = [
        (http2, malformed::ALL),
        (http2, http2_floods::STOPPED),
        (http2, http2_floods::BORNE),
        (http2, held::HTTP2),
        (http1, held::HTTP1),
    ];
    let all = tables.into_iter();
    let all = all.flat_map(|(address, table)| table.iter().map(move |attack| (address, attack)));
    let all: Vec<(SocketAddr, &Attack)> = all.collect();
    loop {
        let (address, attack) = all[random.below(all.len() as u64) as usize];
        let ended = tokio::spawn((attack.run)(address)).await;
        let fault = ended.err().map(|error| error.to_string());
        report.attacked(attack.name, fault);
    }
}

/// Frames of HTTP/3, and of QUIC below it.
async fn packets(way: QuicWay, mut random: Random, report: Arc<AttackReport>) {
    let count = (http3::FRAMES.len() + http3::FLOODS.len()) as u64;
    loop {
        let (nth, way) = (random.below(count) as usize, way.clone());
        let (name, attack) = match http3::FRAMES.get(nth) {
            Some(attack) => (attack.name, tokio::spawn((attack.run)(way))),
            None => {
                let flood = &http3::FLOODS[nth - http3::FRAMES.len()];
                (flood.name, tokio::spawn(flood.run(way)))
            }
        };
        let fault = attack.await.err().map(|error| error.to_string());
        report.attacked(name, fault);
    }
}

/// Requests that rogue origins answer.
async fn plays(client: Client, mut random: Random, report: Arc<AttackReport>) {
    let all: Vec<_> = origin::TABLES.into_iter().flatten().collect();
    loop {
        let play = all[random.below(all.len() as u64) as usize];
        let route = ["/play", "/off"][random.below(2) as usize];
        let path = format!("{route}/{}", play.name);
        let seen = origin::look(&client, &Method::GET, &path, play.sees).await;
        report.attacked(play.name, seen.err());
    }
}
