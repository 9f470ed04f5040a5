//! What a process asks itself before it takes the place of another one: every thread takes its turns,
//! and the admin listener's own answers that it is ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::upgrade::TakeOverError;
use crate::admin::AdminService;
use crate::http::body::Body;
use crate::http::path::PathRules;
use crate::http::server::{LocalEndpoint, Peer, WorkerThread};

/// The longest time that the answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks for the health of this process as a probe would, on the threads that will answer probes.
///
/// # Errors
/// If the answer is not that it is ready.
pub(super) async fn check(
    admin: &Arc<AdminService>,
    admin_threads: &[WorkerThread],
    threads: &[WorkerThread],
) -> Result<(), TakeOverError> {
    let unwell = |why: &str| TakeOverError::Unwell {
        why: why.to_owned(),
    };
    let checked = timeout(LIMIT, async {
        for thread in threads {
            let turn = thread.wait_for_turn().await;
            turn.map_err(|_| unwell("a thread that serves requests has ended"))?;
        }
        let (told, answer) = oneshot::channel();
        let asked = Arc::clone(admin).handle(probe(), prober());
        if let Some(thread) = admin_threads.first() {
            thread.run(async move {
                // Whoever waits may be gone.
                let _ = told.send(asked.await.status());
            });
        }
        match answer.await {
            Ok(StatusCode::OK) => Ok(()),
            Ok(status) => Err(unwell(&format!("/readyz answers {status}"))),
            Err(_) => Err(unwell("the thread of the admin listener has ended")),
        }
    });
    checked
        .await
        .unwrap_or_else(|_| Err(unwell("its threads take no turns")))
}

fn probe() -> Request<Body> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = http::Uri::from_static("/readyz");
    let host = http::HeaderValue::from_static("localhost");
    request.headers_mut().insert(http::header::HOST, host);
    request
}

fn prober() -> Peer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Peer {
        address,
        trusted: false,
        reached: LocalEndpoint::Tcp(address),
        path_rules: PathRules::default(),
        redirect: None,
    }
}
