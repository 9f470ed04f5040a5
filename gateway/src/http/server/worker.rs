//! One thread of the listener: its runtime and its sockets; `accept` is its loops.

use std::future::Future;
use std::sync::Arc;
use std::thread;

use http::Response;
use http::request::Parts;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accept::accept;
use super::signal::{Signal, Stage};
use super::socket::Listening;
use super::{BindError, Body, Early, Entered, Port};
use crate::http::memory::release;

/// A runtime and the sockets that it will accept on.
pub(super) struct Worker {
    /// `None` once the thread has it.
    runtime: Option<Runtime>,
    sockets: Vec<(Arc<Port>, Listening)>,
}

impl Worker {
    pub(super) fn new() -> Result<Self, BindError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| BindError::Runtime { source })?;
        Ok(Self {
            runtime: Some(runtime),
            sockets: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, port: Arc<Port>, socket: Listening) {
        self.sockets.push((port, socket));
    }

    /// Runs on a thread of its own until the signal says cut. `_accepts` and `_lives` are
    /// dropped when it accepts no more, and when it is gone.
    pub(super) fn start<H, F>(
        mut self,
        handler: H,
        signal: Arc<Signal>,
        accepts: mpsc::Sender<()>,
        lives: mpsc::Sender<()>,
    ) where
        H: Fn(Parts, Body, Entered, &Early) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let sockets = std::mem::take(&mut self.sockets);
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::spawn(release::while_idle());
                let mut loops = JoinSet::new();
                for (port, socket) in sockets {
                    loops.spawn(accept(port, socket, handler.clone(), Arc::clone(&signal)));
                }
                while loops.join_next().await.is_some() {}
                drop(accepts);
                signal.reached(Stage::Cut).await;
            });
            // A name look-up that hangs must not keep the process.
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
