//! Requests that come before the handshake of their connection is complete (0-RTT, RFC 8470).
//!
//! Whoever has recorded such a request can send it again, so it may have no effect. The listener
//! marks it with an [`EarlyRequest`]; whoever handles it answers it only if it may be repeated, or
//! waits until the handshake is complete, which no recording can bring about.
//! Neighbours: `quic` begins the connection, `http3` marks the requests.

use tokio::sync::watch;

/// How far the handshake of a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandshakeProgress {
    UnderWay,
    Complete,
}

/// Marks a request that came before the handshake was complete.
#[derive(Clone)]
pub struct EarlyRequest(watch::Receiver<HandshakeProgress>);

/// What became of a handshake that was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwaitedHandshake {
    Complete,
    /// It failed, and the request must not be answered.
    Failed,
}

impl EarlyRequest {
    /// Waits until the handshake is complete or has failed.
    pub async fn handshake(mut self) -> AwaitedHandshake {
        let complete = |progress: &HandshakeProgress| *progress == HandshakeProgress::Complete;
        match self.0.wait_for(complete).await {
            Ok(_) => AwaitedHandshake::Complete,
            // Nobody can tell any more: the connection is gone.
            Err(_) => AwaitedHandshake::Failed,
        }
    }
}

/// Tells the requests of a connection that its handshake is complete. It has failed if this is
/// dropped before.
pub(super) struct HandshakeReport(watch::Sender<HandshakeProgress>);

impl HandshakeReport {
    pub(super) fn new() -> (Self, EarlyRequest) {
        let (report, early) = watch::channel(HandshakeProgress::UnderWay);
        (Self(report), EarlyRequest(early))
    }

    pub(super) fn complete(self) {
        self.0.send_replace(HandshakeProgress::Complete);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_request_waits_until_its_handshake_has_ended() {
        let (report, early) = HandshakeReport::new();
        assert_eq!(early.clone().handshake().now_or_never(), None);
        report.complete();
        let told = early.handshake().now_or_never();
        assert_eq!(told, Some(AwaitedHandshake::Complete));
        let (report, early) = HandshakeReport::new();
        drop(report);
        let told = early.handshake().now_or_never();
        assert_eq!(told, Some(AwaitedHandshake::Failed));
    }
}
