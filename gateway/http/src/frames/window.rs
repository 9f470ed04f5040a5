//! How much content the other side of an HTTP/2 connection takes at the moment, according to its
//! frames: the window of the connection, and the initial window of each stream (RFC 9113 §5.2).
//!
//! h2 knows both and shows neither. So WINDOW_UPDATE of the connection and SETTINGS are read as
//! they pass, and what is sent is noted by the server, or by `sent` towards an origin. A stream's own window is not followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};

use super::HEAD;

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
/// SETTINGS_HEADER_TABLE_SIZE and SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The initial size of the dynamic table.
const TABLE: u32 = 4_096;

/// The initial window.
const DEFAULT: u32 = 65_535;

/// What the other side takes. Written by the task of the connection only.
#[derive(Debug)]
pub struct SendWindow {
    connection: AtomicI64,
    of_new_streams: AtomicU32,
}

/// Reads the payloads that change windows.
pub(super) struct WindowReader {
    window: Arc<SendWindow>,
    reads: FramePayloadKind,
    unit: [u8; 6],
    have: usize,
    /// The smallest dynamic table that the peer has asked for.
    table: u32,
}

/// The kind of the payload that passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FramePayloadKind {
    Nothing,
    Update,
    Settings,
}

impl Default for SendWindow {
    fn default() -> Self {
        Self {
            connection: AtomicI64::new(DEFAULT.into()),
            of_new_streams: AtomicU32::new(DEFAULT),
        }
    }
}

impl SendWindow {
    /// Whether the connection takes more content.
    pub fn is_open(&self) -> bool {
        self.connection.load(Relaxed) > 0
    }

    /// How much content a stream may send before its reader opens its window further.
    pub fn of_new_streams(&self) -> u32 {
        self.of_new_streams.load(Relaxed)
    }

    /// Notes that this much content was sent.
    pub fn used(&self, bytes: usize) {
        let left = self.connection.load(Relaxed) - bytes as i64;
        self.connection.store(left, Relaxed);
    }

    fn opened(&self, bytes: u32) {
        // The sum that h2 accepts stays far below the range of the type.
        let left = self.connection.load(Relaxed) + i64::from(bytes);
        self.connection.store(left, Relaxed);
    }
}

impl WindowReader {
    pub(super) fn new(window: Arc<SendWindow>) -> Self {
        Self {
            window,
            reads: FramePayloadKind::Nothing,
            unit: [0; 6],
            have: 0,
            table: TABLE,
        }
    }

    /// Whether the peer never asked for a dynamic table smaller than the initial one.
    pub(super) fn keeps_table(&self) -> bool {
        self.table >= TABLE
    }

    /// A frame begins.
    pub(super) fn frame(&mut self, head: &[u8; HEAD]) {
        let [.., kind, flags, a, b, c, d] = *head;
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        self.have = 0;
        self.reads = match (kind, stream) {
            (WINDOW_UPDATE, 0) => FramePayloadKind::Update,
            (SETTINGS, 0) if flags & ACK == 0 => FramePayloadKind::Settings,
            _ => FramePayloadKind::Nothing,
        };
    }

    /// Takes bytes of the frame's payload.
    pub(super) fn payload(&mut self, mut bytes: &[u8]) {
        while self.reads != FramePayloadKind::Nothing && !bytes.is_empty() {
            let length = if self.reads == FramePayloadKind::Update {
                4
            } else {
                6
            };
            let taken = bytes.len().min(length - self.have);
            self.unit[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == length {
                self.have = 0;
                self.unit();
            }
        }
    }

    fn unit(&mut self) {
        let [a, b, c, d, e, f] = self.unit;
        match self.reads {
            FramePayloadKind::Update => {
                self.reads = FramePayloadKind::Nothing;
                self.window.opened(u32::from_be_bytes([a & 0x7f, b, c, d]));
            }
            FramePayloadKind::Settings if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE => {
                let value = u32::from_be_bytes([c, d, e, f]);
                self.window.of_new_streams.store(value, Relaxed);
            }
            FramePayloadKind::Settings if u16::from_be_bytes([a, b]) == HEADER_TABLE_SIZE => {
                self.table = self.table.min(u32::from_be_bytes([c, d, e, f]));
            }
            FramePayloadKind::Settings | FramePayloadKind::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::MeteredConnection;
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u8;
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    #[tokio::test]
    async fn windows_are_what_the_frames_say_however_they_are_cut_into_reads() {
        let frames = [
            frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 9, 0, 4, 0, 0, 0, 77]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 1, 0]),
            frame(WINDOW_UPDATE, 0, 3, &[0, 1, 0, 0]),
            frame(0, 0, 0, &[8; 20]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ];
        let bytes = frames.concat();
        for step in [1, 5, 9, 13, 1_000] {
            let window = Arc::new(SendWindow::default());
            let mut metered =
                MeteredConnection::origin(&bytes[..]).with_window(Arc::clone(&window));
            let mut piece = vec![0; step];
            while metered.read(&mut piece).await.unwrap() > 0 {}
            assert_eq!(window.of_new_streams(), 77, "{step} bytes at a time");
            assert!(window.is_open());
            window.used(65_535 + 256);
            assert!(window.is_open(), "{step} bytes at a time");
            window.used(1);
            assert!(!window.is_open(), "{step} bytes at a time");
        }
    }
}
