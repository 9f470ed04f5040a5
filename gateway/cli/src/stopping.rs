//! The end of the process: a first SIGTERM or SIGINT asks for it, a second one wants it now.
//!
//! Signals are heard on a thread that does nothing else, so that they count whatever the
//! others are stuck in; and what has not ended by itself in time is ended there.

use std::io;
use std::process;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What the signals that have arrived so far ask the process to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum StopRequest {
    Nothing,
    /// To drain.
    End,
    /// To end with what is left undone.
    EndNow,
}

/// Time for the process to end by itself, once it has to; then it is ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Hears signals.
pub struct StopSignals(watch::Receiver<StopRequest>);

/// Hears signals from now on. After the first one the process ends within `limit`.
///
/// # Errors
/// When the process may not handle signals, or has no thread for it.
pub fn listen(limit: Duration) -> io::Result<StopSignals> {
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
                // A limit that ends is as good as a second signal.
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

    /// Waits for the second one, or for the end of the time after the first.
    pub async fn asked_again(&mut self) {
        self.reaches(StopRequest::EndNow).await;
    }

    async fn reaches(&mut self, stage: StopRequest) {
        if self.0.wait_for(|asked| *asked >= stage).await.is_err() {
            // Nobody hears signals any more, and so none comes.
            std::future::pending::<()>().await;
        }
    }
}
