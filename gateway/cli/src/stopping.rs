//! The end of the process: a first SIGTERM or SIGINT starts the drain, a second one ends it at
//! once.
//!
//! Signals are received on a thread that does nothing else, so that they work whatever the other
//! threads are stuck in. If the process has not ended in time, this thread ends it.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What the signals so far ask the process to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum StopRequest {
    Nothing,
    /// To drain, then end.
    End,
    /// To end at once, with work left undone.
    EndNow,
}

/// The time for the process to end by itself after `EndNow`. Then it is ended.
pub const LAST_WORDS: Duration = Duration::from_millis(250);

/// Receives signals.
pub struct StopSignals(watch::Receiver<StopRequest>);

/// Starts to receive signals. After the first one, the process ends within the time that `limit`
/// then says, in milliseconds.
///
/// # Errors
/// If the process may not handle signals, or cannot start a thread for it.
pub fn listen(limit: Arc<AtomicU64>) -> io::Result<StopSignals> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ]
    };
    let (tell, told) = watch::channel(StopRequest::Nothing);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                next(&mut signals).await;
                tell.send_replace(StopRequest::End);
                let limit = Duration::from_millis(limit.load(Ordering::Relaxed));
                // The end of the limit has the same effect as a second signal.
                _ = tokio::time::timeout(limit, next(&mut signals)).await;
                tell.send_replace(StopRequest::EndNow);
                tokio::time::sleep(LAST_WORDS).await;
            });
            process::exit(1);
        })?;
    Ok(StopSignals(told))
}

async fn next([term, int]: &mut [Signal; 2]) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

impl StopSignals {
    /// Waits for the first signal.
    pub async fn asked(&mut self) {
        self.reaches(StopRequest::End).await;
    }

    /// Waits for the second signal, or for the end of the time after the first one.
    pub async fn asked_again(&mut self) {
        self.reaches(StopRequest::EndNow).await;
    }

    async fn reaches(&mut self, stage: StopRequest) {
        if self.0.wait_for(|asked| *asked >= stage).await.is_err() {
            // Nobody receives signals any more, so none will come.
            std::future::pending::<()>().await;
        }
    }
}
