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
        let line = (delay.clone(), answers.clone(), parted.clone());
        let accepting = accept(listener, port, line, cuts.clone(), refuses.clone());
        let accepting = tokio::spawn(accepting);
        Self {
            address,
            delay,
            answers,
            cuts,
            parted,
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

async fn accept(
    listener: TcpListener,
    port: u16,
    (delay, answers, parted): (Arc<AtomicU64>, Gate, Arc<watch::Sender<bool>>),
    cuts: Arc<watch::Sender<u64>>,
    refuses: Arc<AtomicBool>,
) {
    while let Ok((near, _)) = listener.accept().await {
        if refuses.load(Ordering::SeqCst) {
            continue;
        }
        let (delay, answers, parted) = (delay.clone(), answers.clone(), parted.clone());
        let mut cut = cuts.subscribe();
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (mut near_in, mut near_out) = near.into_split();
            let (mut far_in, mut far_out) = far.into_split();
            tokio::select! {
                () = pump(&mut near_in, &mut far_out, &delay, None, &parted) => {}
                () = pump(&mut far_in, &mut near_out, &delay, Some(&answers), &parted) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    delay: &AtomicU64,
    held: Option<&Gate>,
    parted: &watch::Sender<bool>,
) {
    let mut whole = parted.subscribe();
    let mut piece = vec![0; 64 << 10];
    loop {
        let n = match from.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let late = delay.load(Ordering::SeqCst);
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
