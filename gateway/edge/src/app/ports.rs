//! The listeners at work, which a reload changes and the end of the process takes.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::http::config::ListenerConfig;
use crate::http::server::{BindError, PreparedListeners, RunningListeners};

/// The listeners for clients. None: the process ends.
pub struct RunningPorts(Mutex<Option<RunningListeners>>);

impl RunningPorts {
    pub fn new(listeners: RunningListeners) -> Self {
        Self(Mutex::new(Some(listeners)))
    }

    /// Opens what is new of these listeners.
    ///
    /// # Errors
    /// Which one can't be opened; `None` if the process ends.
    pub async fn prepare(
        &self,
        wanted: &[ListenerConfig],
    ) -> Result<PreparedListeners, Option<BindError>> {
        let listeners = self.0.lock().await;
        let listeners = listeners.as_ref().ok_or(None)?;
        Ok(listeners.prepare(wanted)?)
    }

    /// Accepts on the prepared listeners. Connections of those that were replaced or removed may go
    /// on for `patience`.
    pub async fn commit(&self, prepared: PreparedListeners, patience: Duration) {
        if let Some(listeners) = self.0.lock().await.as_mut() {
            for retired in listeners.commit(prepared) {
                tokio::spawn(retired.end(patience));
            }
        }
    }

    /// Takes the listeners, at the end of the process.
    pub async fn close(&self) -> Option<RunningListeners> {
        self.0.lock().await.take()
    }
}
