//! Signs of life for the service manager, which restarts a gateway that gives none.
//!
//! Decision: it runs on the thread of the admin listener, and gives a sign only after each thread
//! that serves requests has taken a turn. So a sign means that all of them work: one that hangs
//! stops the signs, though the others still serve, since its share of the connections is not.

use std::time::Duration;

use lamina_base::service_manager::{ServiceManager, ServiceState};

use crate::http::server::WorkerThread;

/// Gives a sign after each `interval` in which every thread has taken a turn. Ends with the first
/// thread that has ended.
pub async fn give_signs(manager: ServiceManager, interval: Duration, serving: Vec<WorkerThread>) {
    loop {
        for thread in &serving {
            if thread.wait_for_turn().await.is_err() {
                return;
            }
        }
        manager.tell(ServiceState::Alive);
        tokio::time::sleep(interval).await;
    }
}
