//! One thread of the listener: its runtime and its sockets. `accept` is the loop of each socket.

use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accept::accept;
use super::bind_error::BindError;
use super::handler::RequestHandler;
use super::port::Port;
use super::quic::{self, QuicSocket, QuicTenant};
use super::signal::{DrainSignal, DrainStage};
use super::socket::ListeningSocket;
use super::thread_work::{self, ThreadWork};
use super::turns::HandshakeTurns;
use crate::memory::release;

/// A runtime before its thread is started.
pub(super) struct Worker {
    turns: Arc<HandshakeTurns>,
    /// `None` once the thread has it.
    runtime: Option<Runtime>,
}

/// Sockets to accept on.
pub(super) enum AcceptOn {
    /// Connections are accepted on it until its port retires. `_accepts` is dropped then.
    Stream {
        port: Arc<Port>,
        socket: ListeningSocket,
        _accepts: mpsc::Sender<()>,
    },
    /// Datagrams of QUIC come in on it, until its last tenant retires.
    Quic {
        tenancy: Arc<ArcSwap<QuicTenant>>,
        socket: QuicSocket,
    },
}

impl Worker {
    pub(super) fn new() -> Result<Self, BindError> {
        let turns = Arc::new(HandshakeTurns::new());
        let idle = Arc::clone(&turns);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || idle.worker_is_idle())
            .build();
        let runtime = runtime.map_err(|source| BindError::Runtime { source })?;
        Ok(Self {
            turns,
            runtime: Some(runtime),
        })
    }

    /// Runs on a thread of its own until `stop` reaches the stage `Cut`, and takes sockets until it
    /// reaches `Drain`. `work` runs beside the requests, to the end. `lives` is dropped when the thread has ended.
    pub(super) fn start<H>(
        mut self,
        handler: H,
        mut sockets: mpsc::UnboundedReceiver<AcceptOn>,
        work: mpsc::UnboundedReceiver<ThreadWork>,
        stop: Arc<DrainSignal>,
        lives: mpsc::Sender<()>,
    ) where
        H: RequestHandler,
    {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let turns = Arc::clone(&self.turns);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::spawn(release::while_idle());
                tokio::spawn(thread_work::run_all(work));
                let mut loops = JoinSet::new();
                loop {
                    select! {
                        // A socket that was sent before the stop is still accepted on, until its
                        // port drains.
                        biased;
                        Some(on) = sockets.recv() => {
                            let (turns, handler) = (Arc::clone(&turns), handler.clone());
                            loops.spawn(async move {
                                match on {
                                    AcceptOn::Stream { port, socket, _accepts } => {
                                        accept(port, socket, turns, handler).await;
                                    }
                                    AcceptOn::Quic { tenancy, socket } => {
                                        quic::accept(tenancy, socket, turns, handler).await;
                                    }
                                }
                            });
                        }
                        () = stop.reached(DrainStage::Drain) => break,
                        Some(_) = loops.join_next() => {}
                    }
                }
                while loops.join_next().await.is_some() {}
                stop.reached(DrainStage::Cut).await;
            });
            // A name look-up that hangs must not keep the process from ending.
            runtime.shutdown_background();
            drop(lives);
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An ordinary drop waits, which panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
