//! The listeners at work, which a reload changes, another process gets duplicates of, and the end of
//! the process takes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lamina_base::service_manager::ServiceManager;
use tokio::sync::Mutex;

use crate::http::config::ListenerConfig;
use crate::http::endpoint::Endpoint;
use crate::http::server::{
    BindError, HandedPort, PreparedListeners, RunningListeners, SocketPurpose, WorkerThread,
    kept_name,
};
use crate::http::tls::certificate::ServerCertificate;

/// Listeners at work: those for clients, or that of the admin API.
pub struct RunningPorts {
    threads: Vec<WorkerThread>,
    /// None: the process ends.
    listeners: Mutex<Option<RunningListeners>>,
    /// Keeps their sockets for the next process.
    manager: ServiceManager,
}

impl RunningPorts {
    /// Nothing is accepted on them yet.
    pub fn new(listeners: RunningListeners, manager: ServiceManager) -> Self {
        Self {
            threads: listeners.threads().to_vec(),
            listeners: Mutex::new(Some(listeners)),
            manager,
        }
    }

    /// The threads that serve what arrives on them.
    pub fn threads(&self) -> &[WorkerThread] {
        &self.threads
    }

    /// Begins to accept.
    pub async fn begin_accepting(&self) {
        if let Some(listeners) = self.listeners.lock().await.as_mut() {
            listeners.begin_accepting();
        }
    }

    /// Has the service manager keep the sockets.
    pub async fn keep(&self) {
        if let Some(listeners) = self.listeners.lock().await.as_ref() {
            keep(listeners, &self.manager);
        }
    }

    /// Duplicates of all sockets.
    ///
    /// # Errors
    /// If there are no descriptors left, or the process ends.
    pub async fn hand_over(
        &self,
        purpose: SocketPurpose,
        configured: &Endpoint,
    ) -> io::Result<Vec<HandedPort>> {
        match self.listeners.lock().await.as_ref() {
            Some(listeners) => listeners.hand_over(purpose, configured),
            None => Err(io::Error::other("the gateway ends")),
        }
    }

    /// Leaves the datagrams of these listeners to the process that has taken them.
    pub async fn leave_datagrams(&self, taken: &[Endpoint]) {
        if let Some(listeners) = self.listeners.lock().await.as_ref() {
            listeners.leave_datagrams(taken);
        }
    }

    /// Reads them again.
    pub async fn take_datagrams_back(&self) {
        if let Some(listeners) = self.listeners.lock().await.as_ref() {
            listeners.take_datagrams_back();
        }
    }

    /// The certificates that clients are shown.
    pub async fn certificates(&self) -> Vec<Arc<ServerCertificate>> {
        match self.listeners.lock().await.as_ref() {
            Some(listeners) => listeners.certificates(),
            None => Vec::new(),
        }
    }

    /// Opens what is new of these listeners.
    ///
    /// # Errors
    /// Which one can't be opened; `None` if the process ends.
    pub async fn prepare(
        &self,
        wanted: &[ListenerConfig],
    ) -> Result<PreparedListeners, Option<BindError>> {
        let listeners = self.listeners.lock().await;
        let listeners = listeners.as_ref().ok_or(None)?;
        Ok(listeners.prepare(wanted)?)
    }

    /// Accepts on the prepared listeners. Connections of those that were replaced or removed may go
    /// on for `patience`.
    pub async fn commit(&self, prepared: PreparedListeners, patience: Duration) {
        if let Some(listeners) = self.listeners.lock().await.as_mut() {
            for mut retired in listeners.commit(prepared) {
                if let Some(address) = retired.closed_address() {
                    // Clients must be refused there, and not wait for the next process.
                    self.manager.let_go(&kept_name(address));
                    // The next configuration may have the address again.
                    retired.stopped_accepting().await;
                }
                tokio::spawn(retired.end(patience));
            }
            keep(listeners, &self.manager);
        }
    }

    /// Takes the listeners, at the end of the process.
    pub async fn close(&self) -> Option<RunningListeners> {
        self.listeners.lock().await.take()
    }
}

fn keep(listeners: &RunningListeners, manager: &ServiceManager) {
    for (address, sockets) in listeners.sockets() {
        manager.keep(&kept_name(address), &sockets);
    }
}
