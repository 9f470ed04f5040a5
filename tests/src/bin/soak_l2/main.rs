//! `soak_l2 [--rounds N] [--kills N]`: what the second tier costs those who don't need it.
//!
//! Redis freezes under load, again and again: a page that is in L1 and pages that are new,
//! each asked for at a steady pace by threads of their own ([`load`]), while Redis works,
//! from its freezing until the breaker opens, while that is open, and after it thawed; and,
//! to compare, the same load on a gateway without a second tier. Then a gateway with a disk
//! is killed in the middle of writes ([`e2e::crash`]). Prints Markdown; fails when one
//! client got an error or one thing was wrong.

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::crash;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};

use load::{RequestTimes, SoakLoad, WARM};

/// What the origin takes for an answer.
const ORIGIN: Duration = Duration::from_millis(20);
/// Of the load while Redis works, while the breaker is open, and without a second tier.
const SPAN: Duration = Duration::from_secs(5);
const COOLDOWN: Duration = Duration::from_secs(2);

/// Times by what Redis did meanwhile, hits and misses.
#[derive(Default)]
struct RedisPhases {
    none: [RequestTimes; 2],
    works: [RequestTimes; 2],
    freezes: [RequestTimes; 2],
    open: [RequestTimes; 2],
    thawed: [RequestTimes; 2],
    /// From thawing until a record was stored.
    back: Vec<Duration>,
}

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped("soak_l2 [--rounds N] [--kills N]") {
        return Ok(());
    }
    let (mut rounds, mut kills) = (5, 100);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().context("a number is missing")?.parse()?;
        match name.as_str() {
            "--rounds" => rounds = value,
            "--kills" => kills = value,
            other => anyhow::bail!("{other}: expected --rounds or --kills"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let phases = runtime.block_on(freeze(rounds));
    println!("{}", phases.text());
    ensure!(phases.failures() == 0, "a client got an error");
    let began = Instant::now();
    let tally = runtime.block_on(crash::run(kills, 1));
    println!("{}", killed(&tally, began.elapsed()));
    Ok(())
}

async fn freeze(rounds: u64) -> RedisPhases {
    let origin = Origin::start(|asked| async move {
        tokio::time::sleep(ORIGIN).await;
        Reply::fresh(asked.seen.path)
    })
    .await;
    let mut phases = RedisPhases::default();
    for _ in 0..rounds {
        let without = start(&origin, "{}").await;
        let load = SoakLoad::start(without.address);
        tokio::time::sleep(SPAN).await;
        load.stop_into(&mut phases.none);
        drop(without);
        round(&origin, &mut phases).await;
    }
    phases
}

async fn round(origin: &Origin, phases: &mut RedisPhases) {
    let redis = Redis::start().await;
    let l2 = format!(
        "{{redis: {{url: \"{}\"}}, breaker: {{cooldown: {}s}}}}",
        redis.url(),
        COOLDOWN.as_secs()
    );
    let gateway = start(origin, &l2).await;
    let load = SoakLoad::start(gateway.address);
    tokio::time::sleep(SPAN).await;
    load.stop_into(&mut phases.works);
    let load = SoakLoad::start(gateway.address);
    redis.freeze();
    breaker(&gateway, 1.0).await;
    load.stop_into(&mut phases.freezes);
    let load = SoakLoad::start(gateway.address);
    tokio::time::sleep(SPAN).await;
    load.stop_into(&mut phases.open);
    let (load, thawed) = (SoakLoad::start(gateway.address), Instant::now());
    let before = stored(&gateway).await;
    redis.thaw();
    wait_for("it is written to again", SOON, || async {
        (stored(&gateway).await > before).then_some(())
    })
    .await;
    phases.back.push(thawed.elapsed());
    breaker(&gateway, 0.0).await;
    load.stop_into(&mut phases.thawed);
}

async fn start(origin: &Origin, l2: &str) -> Gateway {
    let gateway = Setup::new(origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .top("telemetry", "{log_format: json, access_log: off}")
        .start()
        .await;
    gateway.client().get(WARM).await;
    gateway
}

async fn breaker(gateway: &Gateway, open: f64) {
    gateway
        .metric_until("lamina_l2_breaker_open", &[], |now| now == open)
        .await;
}

async fn stored(gateway: &Gateway) -> f64 {
    let labels = [("outcome", "stored")];
    gateway.metric("lamina_l2_writes_total", &labels).await
}

impl RedisPhases {
    fn all(&self) -> [(&'static str, &[RequestTimes; 2]); 5] {
        [
            ("there is no second tier", &self.none),
            ("Redis works", &self.works),
            ("Redis froze, until the breaker opened", &self.freezes),
            ("the breaker is open", &self.open),
            ("Redis thawed, until it is used again", &self.thawed),
        ]
    }

    fn failures(&self) -> u64 {
        let all = self.all().into_iter().flat_map(|(_, both)| both);
        all.map(|times| times.failures).sum()
    }

    fn text(&self) -> String {
        let mut text = format!(
            "### Redis freezes under load\n\nAn origin that takes {} ms; {} rounds; times in ms.\n\n\
             | while | hits | p50 | p99 | misses | p50 | p99 | failed |\n|---|---|---|---|---|---|---|---|\n",
            ORIGIN.as_millis(),
            self.back.len()
        );
        for (name, [hits, misses]) in self.all() {
            let failed = hits.failures + misses.failures;
            text.push_str(&format!(
                "| {name} | {} | {} | {failed} |\n",
                hits.text(),
                misses.text()
            ));
        }
        let mut back = self.back.clone();
        back.sort_unstable();
        let end = |time: Option<&Duration>| time.copied().unwrap_or_default();
        let (least, most) = (end(back.first()), end(back.last()));
        text.push_str(&format!(
            "\nFrom thawing until a record was stored: {least:.1?} to {most:.1?}, with a cooldown of {COOLDOWN:?}.\n"
        ));
        text
    }
}

fn killed(tally: &crash::Tally, took: Duration) -> String {
    format!(
        "### Killed in the middle of writes, with a disk\n\n\
         | kills | synced pages asked for | of them there | unsynced | of them there | purged pages that came back | wrong bodies |\n\
         |---|---|---|---|---|---|---|\n\
         | {} | {} | {} | {} | {} | 0 of {} | 0 |\n\n{took:.0?} in all.\n",
        tally.kills, tally.kept, tally.kept, tally.unsynced, tally.unsynced_kept, tally.purged
    )
}
