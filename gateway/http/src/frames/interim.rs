//! `100 Continue` for HTTP/2 clients that wait for it before they send the content of a request
//! (RFC 9110 §10.1.1).
//!
//! h2 can send one, but hyper's server gives no access to that. So a frame is put between those
//! that hyper writes: HEADERS whose block changes no table (RFC 7541 §6.2.2), before any other
//! frame of that stream. It is sent as soon as the head was read: if the handler reads no
//! content, its answer comes all the same, and ends the request.
//!
//! A client that has made the dynamic table smaller gets none: the first block after that must
//! begin with the new size (RFC 7541 §4.2), and only h2 knows whether it has sent that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{CONTINUATION, HEAD, HEADERS, PUSH_PROMISE};

const END_HEADERS: u8 = 4;
/// `:status: 100`, with the name of entry 8 of the static table, not added to any table.
const CONTINUE: &[u8] = b"\x08\x03100";
/// The most bytes of frames that wait to be written; further requests get none.
const MOST_WAITING: usize = 256 * (HEAD + CONTINUE.len());

/// The frames that wait to be written, and where hyper's own frames begin.
#[derive(Default)]
pub(super) struct ContinueInjector {
    waiting: Vec<u8>,
    /// Bytes that are left of the frame that is being written.
    skip: u32,
    head: [u8; HEAD],
    /// How many bytes of `head` were written.
    have: usize,
    /// A header block is being written, inside which no other frame is allowed.
    in_block: bool,
}

impl ContinueInjector {
    /// Queues a 100 for this stream, whose client waits for it.
    pub(super) fn go_on(&mut self, stream: u32) {
        if self.waiting.len() >= MOST_WAITING {
            return;
        }
        let length = CONTINUE.len() as u8;
        self.waiting.extend([0, 0, length, HEADERS, END_HEADERS]);
        self.waiting.extend(stream.to_be_bytes());
        self.waiting.extend(CONTINUE);
    }

    /// Writes the frames that wait, if they are allowed here.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() && self.held() == 0 {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.waiting.drain(..count)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes may be written before [`poll_write`](Self::poll_write) must be called again.
    pub(super) fn most(&self) -> usize {
        match self.waiting.is_empty() {
            true => usize::MAX,
            false => self.held(),
        }
    }

    /// The bytes before whose end no other frame can begin.
    fn held(&self) -> usize {
        match (self.skip, self.have) {
            (1.., _) => self.skip as usize,
            (0, 1..) => HEAD - self.have,
            (0, 0) if self.in_block => HEAD,
            (0, 0) => 0,
        }
    }

    /// Looks at what was written.
    pub(super) fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                self.begin_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::super::MeteredConnection;
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 3];
        frame.resize(HEAD + payload, 7);
        frame
    }

    /// What is written when hyper writes `before` and then `after`, `step` bytes at a time, and a
    /// request begins to wait in between.
    async fn written(before: &[u8], after: &[u8], step: usize) -> Vec<u8> {
        let mut metered = MeteredConnection::client(Vec::new(), Arc::default());
        for piece in before.chunks(step) {
            metered.write_all(piece).await.unwrap();
        }
        metered.interim.as_mut().unwrap().go_on(5);
        for piece in after.chunks(step) {
            metered.write_all(piece).await.unwrap();
        }
        metered.flush().await.unwrap();
        metered.io
    }

    #[tokio::test]
    async fn it_stands_at_the_next_place_where_a_frame_may_begin() {
        let said = [&[0, 0, 5, HEADERS, END_HEADERS, 0, 0, 0, 5], CONTINUE].concat();
        let data = frame(0, 0, 20);
        let block = [frame(HEADERS, 0, 6), frame(CONTINUATION, END_HEADERS, 9)].concat();
        for whole in [&data, &block] {
            for cut in 0..whole.len() {
                for step in [1, 5, 1_000] {
                    let [before, after] = [&whole[..cut], &[&whole[cut..], &data].concat()];
                    let out = written(before, after, step).await;
                    let expected = match cut {
                        0 => [&said, &whole[..], &data].concat(),
                        _ => [&whole[..], &said, &data].concat(),
                    };
                    assert_eq!(out, expected, "cut at {cut}, {step} bytes at a time");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_the_connection_does_not_take_yet_goes_out_later() {
        let (io, mut client): (DuplexStream, DuplexStream) = duplex(3);
        let mut metered = MeteredConnection::client(io, Arc::default());
        metered.interim.as_mut().unwrap().go_on(1);
        let data = frame(0, 0, 40);
        let writing = async {
            metered.write_all(&data).await.unwrap();
            metered.shutdown().await.unwrap();
        };
        let mut out = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut out);
        let (_, read) = tokio::join!(writing, reading);
        read.unwrap();
        assert_eq!(&out[..HEAD], [0, 0, 5, HEADERS, END_HEADERS, 0, 0, 0, 1]);
        assert_eq!(out[HEAD + CONTINUE.len()..], data);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut interim = ContinueInjector::default();
        (0..10_000).for_each(|stream| interim.go_on(stream));
        assert_eq!(interim.waiting.len(), MOST_WAITING);
    }
}
