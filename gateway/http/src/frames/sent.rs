//! The content in the frames that are written to an origin, which uses up the window of the connection
//! (RFC 9113 §6.9.1). What a request had to send and did not, since it ended before, used up nothing.

use std::sync::Arc;

use super::{DATA, HEAD, PREFACE, SendWindow};

/// Follows the frames that are written.
pub(super) struct SentContent {
    window: Arc<SendWindow>,
    /// Bytes that are left of the present frame.
    skip: u32,
    head: [u8; HEAD],
    /// How many bytes of `head` were written.
    have: usize,
}

impl SentContent {
    /// From the first byte of a connection on.
    pub(super) fn new(window: Arc<SendWindow>) -> Self {
        Self {
            window,
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
        }
    }

    /// Looks at the frames that begin in `bytes`.
    pub(super) fn wrote(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEAD {
                return;
            }
            self.have = 0;
            let [high, middle, low, kind, ..] = self.head;
            self.skip = u32::from_be_bytes([0, high, middle, low]);
            if kind == DATA {
                self.window.used(self.skip as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::MeteredConnection;
    use super::*;

    #[tokio::test]
    async fn content_uses_the_window_however_it_is_cut_into_writes() {
        let mut bytes = vec![0; PREFACE as usize];
        for (kind, length) in [(4, 6), (DATA, 65_000), (1, 300), (DATA, 534)] {
            let [_, high, middle, low] = u32::to_be_bytes(length);
            bytes.extend_from_slice(&[high, middle, low, kind, 0, 0, 0, 0, 1]);
            bytes.resize(bytes.len() + length as usize, 9);
        }
        for step in [1, 7, 9, 1_000, 100_000] {
            let window = Arc::new(SendWindow::default());
            let metered = MeteredConnection::origin(tokio::io::sink());
            let mut metered = metered.with_used_window(Arc::clone(&window));
            for piece in bytes.chunks(step) {
                metered.write_all(piece).await.unwrap();
            }
            assert!(window.is_open(), "{step} bytes at a time");
            window.used(1);
            assert!(!window.is_open(), "{step} bytes at a time");
        }
    }
}
