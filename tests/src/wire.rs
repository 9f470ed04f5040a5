//! A TCP proxy in front of anything: bytes come late, or answers are held back, or the line
//! is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::gate::Gate;

/// The proxy; dropping it ends every connection.
pub struct Wire {
    pub address: SocketAddr,
    delay: Arc<AtomicU64>,
    answers: Gate,
    cuts: Arc<watch::Sender<u64>>,
    parted: Arc<watch::Sender<bool>>,
    /// How often the connections of that moment were stranded.
    strandings: Arc<AtomicU64>,
    refuses: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Listens in front of `127.0.0.1:port`.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let delay = Arc::new(AtomicU64::new(0));
        let answers = Gate::new();
        answers.open();
        let cuts = Arc::new(watch::Sender::new(0));
        let parted = Arc::new(watch::Sender::new(false));
        let refuses = Arc::new(AtomicBool::new(false));
        let strandings = Arc::new(AtomicU64::new(0));
        let line = WireState {
            delay: delay.clone(),
            answers: answers.clone(),
            parted: parted.clone(),
            strandings: strandings.clone(),
        };
        let accepting = accept(listener, port, line, cuts.clone(), refuses.clone());
        let accepting = tokio::spawn(accepting);
        Self {
            address,
            delay,
            answers,
            cuts,
            parted,
            strandings,
            refuses,
            accepting,
        }
    }

    /// Every piece of data is late by `delay`, in either direction.
    pub fn slow(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.delay.store(millis, Ordering::SeqCst);
    }

    /// From now on nothing passes, and nobody is told: connections stand, new ones too.
    pub fn part(&self) {
        self.parted.send_replace(true);
    }

    /// What was held back by `part` goes on its way.
    pub fn heal(&self) {
        self.parted.send_replace(false);
    }

    /// From now on nothing passes on the connections that stand, and nobody is told; new ones work.
    pub fn strand(&self) {
        self.strandings.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on what comes back waits here; what is sent arrives.
    pub fn hold(&self) {
        self.answers.shut();
    }

    /// Lets through what was held.
    pub fn release(&self) {
        self.answers.open();
    }

    /// Ends all connections that stand; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all connections; those that are made within `span` end at once too.
    pub async fn cut_for(&self, span: Duration) {
        self.refuses.store(true, Ordering::SeqCst);
        self.cut();
        tokio::time::sleep(span).await;
        self.refuses.store(false, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// What decides on the way of each piece of data.
#[derive(Clone)]
struct WireState {
    delay: Arc<AtomicU64>,
    answers: Gate,
    parted: Arc<watch::Sender<bool>>,
    strandings: Arc<AtomicU64>,
}

async fn accept(
    listener: TcpListener,
    port: u16,
    line: WireState,
    cuts: Arc<watch::Sender<u64>>,
    refuses: Arc<AtomicBool>,
) {
    while let Ok((near, _)) = listener.accept().await {
        if refuses.load(Ordering::SeqCst) {
            continue;
        }
        let line = line.clone();
        let mut cut = cuts.subscribe();
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (mut near_in, mut near_out) = near.into_split();
            let (mut far_in, mut far_out) = far.into_split();
            tokio::select! {
                () = pump(&mut near_in, &mut far_out, None, &line) => {}
                () = pump(&mut far_in, &mut near_out, Some(&line.answers), &line) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    held: Option<&Gate>,
    line: &WireState,
) {
    let mut whole = line.parted.subscribe();
    let before = line.strandings.load(Ordering::SeqCst);
    let mut piece = vec![0; 64 << 10];
    loop {
        let n = match from.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        if line.strandings.load(Ordering::SeqCst) > before {
            return std::future::pending().await;
        }
        let late = line.delay.load(Ordering::SeqCst);
        if late > 0 {
            tokio::time::sleep(Duration::from_millis(late)).await;
        }
        // The sender lives as long as the pump.
        let _ = whole.wait_for(|parted| !parted).await;
        if let Some(gate) = held {
            gate.pass().await;
        }
        if to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
}
