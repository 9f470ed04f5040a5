//! `lamina demo-origin`: a small web site to try the gateway on.
//!
//! The parts: `site` is the table of pages, `pages` makes their answers, `reply` has the HTTP
//! helpers that they need. The site is served by our own listener, on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

use self::site::DemoSite;
use lamina_http::config::ListenerConfig;
use lamina_http::server::{
    BindError, BoundListeners, HandlerAnswer, RunningListeners, SharedByListeners,
};

mod pages;
mod reply;
mod site;
#[cfg(test)]
mod tests;

/// How long pages that are under way may take when the site stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves the site on `listen` until SIGINT or SIGTERM.
///
/// # Errors
/// Returns which address cannot be listened on, and what to do about it.
pub async fn run(listen: &[SocketAddr]) -> Result<(), BindError> {
    let (running, addresses) = start(listen)?;
    for address in addresses {
        tracing::info!(%address, "the demo origin is ready");
    }
    stopped().await;
    running.drain(DRAIN).await;
    Ok(())
}

/// Starts the site and returns its addresses. It stops when `RunningListeners` is dropped.
///
/// # Errors
/// Returns which address cannot be listened on, and what to do about it.
pub fn start(listen: &[SocketAddr]) -> Result<(RunningListeners, Vec<SocketAddr>), BindError> {
    let listeners: Vec<_> = listen
        .iter()
        .copied()
        .map(ListenerConfig::clear_text)
        .collect();
    let bound = BoundListeners::bind(&listeners, 1, SharedByListeners::default())?;
    let addresses = bound.addresses();
    let site = Arc::new(DemoSite::default());
    let running = bound.start(move |head, body, _entered, _early| {
        let site = Arc::clone(&site);
        let request = http::Request::from_parts(head, body);
        HandlerAnswer::later(async move { site.answer(request).await })
    });
    Ok((running, addresses))
}

/// Waits for a signal to stop. Waits for ever if signals cannot be handled.
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
