//! A publisher that is none of ours: straight to the broker, as quickly as the slowest node
//! counts it, what is no event, is too large, or is for others.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::random::Random;
use lamina_cluster::bus::event::{BusEvent, EventShape};
use lamina_cluster::bus::transport::{BusTransport, TransportEvent, TransportEventSender};
use std::sync::Arc;

use crate::broker::SoakBroker;
use crate::nodes::{PATIENCE, SoakNodes};
use crate::readers::{PageReaders, ReadTally};

/// Events on their way to the slowest node at most. More than twice as many wait nowhere
/// in a gateway: it would have to say that some were lost, whoever's they were.
const AHEAD: usize = 4_000;
const BATCH: usize = 50;
const TENTHS: usize = 10;
/// Of the readers, before.
const BEFORE: Duration = Duration::from_secs(5);

/// What it came to.
pub struct FloodOutcome {
    pub malformed: usize,
    pub foreign: usize,
    /// Counted by all nodes together as that, of the former times the number of nodes.
    pub counted_malformed: f64,
    pub counted_foreign: f64,
    pub nodes: usize,
    /// Times that a node took messages as lost.
    pub gaps: f64,
    pub took: Duration,
    pub before: ReadTally,
    pub during: ReadTally,
    /// Resident bytes of each node: before, and after each tenth.
    pub memory: Vec<Vec<u64>>,
}

pub async fn flood(
    count: usize,
    broker: &SoakBroker,
    nodes: &SoakNodes,
    readers: &PageReaders,
) -> FloodOutcome {
    let start = readers.tally();
    tokio::time::sleep(BEFORE).await;
    let before = readers.tally().since(start);
    let transport = joined(broker).await;
    let [malformed_before, foreign_before, gaps_before] = counts(nodes).await;
    let mut memory = vec![nodes.memory()];
    let (start, began) = (readers.tally(), Instant::now());
    let mut events = FloodEvents::new();
    let (mut malformed, mut foreign) = (0, 0);
    while malformed + foreign < count {
        let batch: Vec<(Bytes, bool)> = (0..BATCH).map(|_| events.next()).collect();
        foreign += batch.iter().filter(|(_, foreign)| *foreign).count();
        malformed += batch.iter().filter(|(_, foreign)| !foreign).count();
        let batch: Vec<Bytes> = batch.into_iter().map(|(bytes, _)| bytes).collect();
        publish(&*transport, &batch).await;
        if (malformed + foreign) * TENTHS >= count * memory.len() {
            memory.push(nodes.memory());
        }
        if (malformed + foreign) % (AHEAD / 2) == 0 {
            let sent = malformed + foreign;
            counted(
                nodes,
                malformed_before + foreign_before,
                sent.saturating_sub(AHEAD / 2),
            )
            .await;
        }
    }
    counted(
        nodes,
        malformed_before + foreign_before,
        malformed + foreign,
    )
    .await;
    let [malformed_after, foreign_after, gaps_after] = counts(nodes).await;
    nodes.origin.forget();
    FloodOutcome {
        malformed,
        foreign,
        counted_malformed: malformed_after - malformed_before,
        counted_foreign: foreign_after - foreign_before,
        nodes: nodes.all.len(),
        gaps: gaps_after - gaps_before,
        took: began.elapsed(),
        before,
        during: readers.tally().since(start),
        memory,
    }
}

impl FloodOutcome {
    /// Each counted for what it is, and nothing taken for lost.
    pub fn is_counted(&self) -> bool {
        let due = |sent: usize| (sent * self.nodes) as f64;
        self.counted_malformed == due(self.malformed) && self.counted_foreign == due(self.foreign)
    }

    /// The node that takes most, in MiB: before, and after each tenth.
    pub fn most(&self) -> Vec<u64> {
        let most = self.memory.iter().map(|nodes| nodes.iter().max());
        most.map(|most| most.map_or(0, |bytes| bytes >> 20))
            .collect()
    }
}

/// A way to the broker, of which nothing is read.
async fn joined(broker: &SoakBroker) -> Arc<dyn BusTransport> {
    let transport = broker.open("flood");
    let (mail, mut words) = TransportEventSender::new();
    transport.run(mail);
    while !matches!(words.recv().await, Some(TransportEvent::Up { .. })) {}
    tokio::spawn(async move {
        while let Some(word) = words.recv().await {
            if let TransportEvent::Message(delivery) = word
                && let Some(receipt) = delivery.receipt
            {
                receipt.done();
            }
        }
    });
    transport
}

async fn publish(transport: &dyn BusTransport, batch: &[Bytes]) {
    let mut sent = 0;
    while sent < batch.len() {
        let (taken, error) = transport.publish(&batch[sent..]).await;
        sent += taken;
        if let Some(error) = error {
            panic!("the flood does not reach the broker: {error}");
        }
    }
}

/// Malformed, of another namespace, gaps.
async fn counts(nodes: &SoakNodes) -> [f64; 3] {
    let received = "lamina_bus_received_total";
    [
        nodes.sum(received, &[("outcome", "malformed")]).await,
        nodes.sum(received, &[("outcome", "other-namespace")]).await,
        nodes.sum("lamina_cluster_gaps_total", &[]).await,
    ]
}

/// Waits until all nodes together have counted as many, each once.
async fn counted(nodes: &SoakNodes, before: f64, sent: usize) {
    let due = before + (sent * nodes.all.len()) as f64;
    let began = Instant::now();
    loop {
        let [malformed, foreign, _] = counts(nodes).await;
        if malformed + foreign >= due {
            return;
        }
        if began.elapsed() > PATIENCE / 3 {
            eprintln!("{malformed} + {foreign} were counted of {due}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every kind in turn.
struct FloodEvents {
    random: Random,
    turn: usize,
    whole: Bytes,
    bomb: Bytes,
    large: Bytes,
}

impl FloodEvents {
    fn new() -> Self {
        Self {
            random: Random::new(5),
            turn: 0,
            whole: everything(Some("another"), "nobody").encode(),
            bomb: everything(None, &"x".repeat(4 << 20)).encode(),
            large: Bytes::from(vec![b'x'; 200_000]),
        }
    }

    /// The next, and whether it is a good event of others.
    fn next(&mut self) -> (Bytes, bool) {
        self.turn += 1;
        let bytes = match self.turn % 100 {
            0 => self.bomb.clone(),
            50 => self.large.clone(),
            n => return self.small(n % 6),
        };
        (bytes, false)
    }

    fn small(&mut self, kind: usize) -> (Bytes, bool) {
        let whole = &self.whole;
        let bytes = match kind {
            0 => return (everything(Some("another"), "*").encode(), true),
            1 => return (everything(None, "*").encode(), true),
            2 => self.noise(),
            3 => whole.slice(..1 + self.random.below(whole.len() as u64 - 1) as usize),
            4 => Bytes::from_static(br#"{"type":"flush","source":"x","ts":1,"namespace":"soak"}"#),
            _ => Bytes::from_static(b"\x82\xa4type\xa3del\xa9namespace\xa4soak"),
        };
        (bytes, false)
    }

    fn noise(&mut self) -> Bytes {
        let length = 1 + self.random.below(300);
        // With the highest bit alone, so that it is never a map by accident.
        (0..length)
            .map(|_| 0xa0 | (self.random.below(32) as u8))
            .collect()
    }
}

/// One that would purge everything, were it for these nodes.
fn everything(namespace: Option<&str>, pattern: &str) -> BusEvent {
    BusEvent {
        id: String::new(),
        source: "flood".to_owned(),
        namespace: namespace.map(str::to_owned),
        ts: 1,
        shape: EventShape::Pattern(pattern.to_owned()),
        ours: None,
    }
}
