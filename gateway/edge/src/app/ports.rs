//! The listeners at work, which a reload changes and the end of the process takes.

use std::time::Duration;

use lamina_base::service_manager::ServiceManager;
use tokio::sync::Mutex;

use crate::http::config::ListenerConfig;
use crate::http::server::{BindError, PreparedListeners, RunningListeners, kept_name};

/// The listeners for clients.
pub struct RunningPorts {
    /// None: the process ends.
    listeners: Mutex<Option<RunningListeners>>,
    /// Keeps their sockets for the next process.
    manager: ServiceManager,
}

impl RunningPorts {
    pub fn new(listeners: RunningListeners, manager: ServiceManager) -> Self {
        keep(&listeners, &manager);
        Self {
            listeners: Mutex::new(Some(listeners)),
            manager,
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
