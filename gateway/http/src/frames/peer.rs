//! What an HTTP/2 origin says about the connection itself: how many requests it takes at once
//! (SETTINGS_MAX_CONCURRENT_STREAMS), and that it takes no more (GOAWAY).
//!
//! h2 knows both and hyper shows neither, so a request beyond the limit would wait inside h2
//! behind all others. The frames are read as they pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use tokio::sync::Notify;

use super::HEAD;

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What an origin said about a connection.
#[derive(Debug)]
pub struct Http2PeerState {
    settled: AtomicBool,
    /// Tells of each SETTINGS frame, and of the end.
    has_changed: Notify,
    max_streams: AtomicU32,
    going_away: AtomicBool,
}

/// Reads the frames that say so.
pub(super) struct PeerReader {
    state: Arc<Http2PeerState>,
    /// Bytes that are left of a SETTINGS frame's payload. None: another frame.
    left: Option<u32>,
    setting: [u8; 6],
    have: usize,
}

impl Default for Http2PeerState {
    fn default() -> Self {
        Self {
            settled: AtomicBool::new(false),
            has_changed: Notify::new(),
            max_streams: AtomicU32::new(u32::MAX),
            going_away: AtomicBool::new(false),
        }
    }
}

impl Http2PeerState {
    /// Waits for the first SETTINGS of the origin (RFC 9113 §3.4), or for the connection's end.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed();
            if self.settled.load(Relaxed) || self.is_going_away() {
                return;
            }
            changed.await;
        }
    }

    /// Notes that the connection takes no further requests, or has ended.
    pub fn end(&self) {
        self.going_away.store(true, Relaxed);
        self.has_changed.notify_waiters();
    }

    /// Waits for the next SETTINGS of the origin after this call, or for the connection's end.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.has_changed.notified()
    }

    /// How many streams may be open at once.
    pub fn max_streams(&self) -> u32 {
        self.max_streams.load(Relaxed)
    }

    /// Whether this connection takes no further requests.
    pub fn is_going_away(&self) -> bool {
        self.going_away.load(Relaxed)
    }
}

impl PeerReader {
    pub(super) fn new(state: Arc<Http2PeerState>) -> Self {
        Self {
            state,
            left: None,
            setting: [0; 6],
            have: 0,
        }
    }

    /// A frame begins, whose payload has `length` bytes.
    pub(super) fn frame(&mut self, head: &[u8; HEAD], length: u32) {
        let [_, _, _, kind, flags, ..] = *head;
        self.left = None;
        self.have = 0;
        match kind {
            GOAWAY => self.state.end(),
            SETTINGS if flags & ACK == 0 => {
                self.left = Some(length);
                self.end_if_whole();
            }
            _ => {}
        }
    }

    /// Takes bytes of the frame's payload.
    pub(super) fn payload(&mut self, mut bytes: &[u8]) {
        while let Some(left) = self.left.filter(|_| !bytes.is_empty()) {
            let taken = bytes.len().min(self.setting.len() - self.have);
            self.setting[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            self.left = Some(left.saturating_sub(taken as u32));
            if self.have == self.setting.len() {
                self.have = 0;
                self.take_setting();
            }
            self.end_if_whole();
        }
    }

    fn take_setting(&mut self) {
        let [a, b, c, d, e, f] = self.setting;
        if u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS {
            let most = u32::from_be_bytes([c, d, e, f]);
            self.state.max_streams.store(most, Relaxed);
        }
    }

    fn end_if_whole(&mut self) {
        if self.left == Some(0) {
            self.left = None;
            self.state.settled.store(true, Relaxed);
            self.state.has_changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::MeteredConnection;
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    #[tokio::test]
    async fn settings_and_goaway_are_noted_however_they_are_cut_into_reads() {
        let first = [0, 3, 0, 0, 0, 10, 0, 4, 0, 1, 0, 0];
        let frames = [
            frame(SETTINGS, 0, &first),
            frame(SETTINGS, ACK, &[]),
            frame(SETTINGS, 0, &[0, 3, 0, 0, 1, 0]),
            frame(GOAWAY, 0, &[0; 8]),
        ];
        for step in [1, 5, 9, 21, 1_000] {
            let state = Arc::new(Http2PeerState::default());
            assert_eq!(state.max_streams(), u32::MAX);
            for (count, (most, gone)) in [(10, false), (10, false), (256, false), (256, true)]
                .into_iter()
                .enumerate()
            {
                let bytes = frames[..=count].concat();
                let mut metered =
                    MeteredConnection::origin(&bytes[..]).with_peer(Arc::clone(&state));
                let mut piece = vec![0; step];
                while metered.read(&mut piece).await.unwrap() > 0 {}
                state.settled().await;
                assert_eq!(
                    (state.max_streams(), state.is_going_away()),
                    (most, gone),
                    "{count} frames, {step} bytes at a time"
                );
            }
        }
    }

    #[tokio::test]
    async fn empty_settings_settle_the_connection() {
        let state = Arc::new(Http2PeerState::default());
        let bytes = frame(SETTINGS, 0, &[]);
        let mut metered = MeteredConnection::origin(&bytes[..]).with_peer(Arc::clone(&state));
        let mut piece = [0; 16];
        while metered.read(&mut piece).await.unwrap() > 0 {}
        state.settled().await;
    }
}
