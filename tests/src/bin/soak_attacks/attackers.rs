//! Those that do not behave: the suites' attacks one after the other, in an order that
//! changes, some at once.

use std::net::SocketAddr;
use std::sync::Arc;

use e2e::attack::bytes::Case;
use e2e::attack::{Attack, held, http1, http1_bodies, http2, http2_floods, origin};
use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::random::Random;
use http::Method;
use tokio::task::JoinSet;

use crate::report::Report;

/// Starts them; they end when the set is dropped.
pub fn start(gateway: &Gateway, report: &Arc<Report>) -> JoinSet<()> {
    let (address, mut attackers) = (gateway.address, JoinSet::new());
    for seed in 0..2 {
        let random = Random::new(seed);
        attackers.spawn(bytes(address, random.clone(), Arc::clone(report)));
        attackers.spawn(frames(address, random.clone(), Arc::clone(report)));
        for client in [gateway.client(), gateway.client_http2()] {
            attackers.spawn(plays(client, random.clone(), Arc::clone(report)));
        }
    }
    attackers
}

/// Bytes on HTTP/1 connections.
async fn bytes(address: SocketAddr, mut random: Random, report: Arc<Report>) {
    let all: Vec<Case> = http1::heads()
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
async fn frames(address: SocketAddr, mut random: Random, report: Arc<Report>) {
    let tables = [
        http2::ALL,
        http2_floods::STOPPED,
        http2_floods::BORNE,
        held::ALL,
    ];
    let all: Vec<&Attack> = tables.into_iter().flatten().collect();
    loop {
        let attack = all[random.below(all.len() as u64) as usize];
        let ended = tokio::spawn((attack.run)(address)).await;
        let fault = ended.err().map(|error| error.to_string());
        report.attacked(attack.name, fault);
    }
}

/// Requests that rogue origins answer.
async fn plays(client: Client, mut random: Random, report: Arc<Report>) {
    let all: Vec<_> = origin::TABLES.into_iter().flatten().collect();
    loop {
        let play = all[random.below(all.len() as u64) as usize];
        let route = ["/play", "/off"][random.below(2) as usize];
        let path = format!("{route}/{}", play.name);
        let seen = origin::look(&client, &Method::GET, &path, play.sees).await;
        report.attacked(play.name, seen.err());
    }
}
