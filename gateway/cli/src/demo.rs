//! `lamina demo-origin`: a small web site to try the gateway on.
//!
//! Inside: `site` is the table of pages, `pages` what they answer, `reply` the words of
//! HTTP they need. It serves itself with our own listener, on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

use self::site::Site;
use lamina_http::config::{Limits, Listener, Protocol};
use lamina_http::path::Rules;
use lamina_http::server::{Answering, BindError, Bound, Running};

mod pages;
mod reply;
mod site;
#[cfg(test)]
mod tests;

/// How long pages under way may take when the site stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves the site on `listen` until SIGINT or SIGTERM.
///
/// # Errors
/// Which address cannot be listened on, and what to do about it.
pub async fn run(listen: &[SocketAddr]) -> Result<(), BindError> {
    let (running, addresses) = start(listen)?;
    for address in addresses {
        tracing::info!(%address, "the demo origin is ready");
    }
    stopped().await;
    running.drain(DRAIN).await;
    Ok(())
}

/// Starts the site and returns where it listens; it stops when `Running` is dropped.
///
/// # Errors
/// Which address cannot be listened on, and what to do about it.
pub fn start(listen: &[SocketAddr]) -> Result<(Running, Vec<SocketAddr>), BindError> {
    let listeners: Vec<_> = listen.iter().copied().map(listener).collect();
    let bound = Bound::bind(&listeners, 1, 0)?;
    let addresses = bound.addresses();
    let site = Arc::new(Site::default());
    let running = bound.start(move |head, body, _entered, _early| {
        let site = Arc::clone(&site);
        let request = http::Request::from_parts(head, body);
        Answering::later(async move { site.answer(request).await })
    });
    Ok((running, addresses))
}

fn listener(address: SocketAddr) -> Listener {
    Listener {
        address,
        protocols: vec![Protocol::Http1, Protocol::Http2],
        trusted_proxies: Vec::new(),
        trusted_headers: Vec::new(),
        proxy_protocol: false,
        limits: Limits::default(),
        path: Rules::default(),
    }
}

/// Waits for a signal to stop; without signals, for ever.
async fn stopped() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
