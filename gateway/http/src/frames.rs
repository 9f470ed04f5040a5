//! Counts HTTP/2 frames that cost the reader work and the sender nothing.
//!
//! h2 bounds what frames keep in memory, the resets of streams that nobody has accepted yet, and
//! those that its own errors cause. It does not count frames that it answers or drops at once
//! (PING, SETTINGS, PRIORITY, empty DATA, WINDOW_UPDATE, unknown kinds), nor the reset of a
//! stream that is being worked on, for which an origin was asked. This module looks only at the
//! nine bytes that begin a frame, at what [`window`] must know, and at the header blocks of
//! clients: for the parts of paths that h2 drops ([`FragmentPaths`]) and for requests that wait for
//! a 100 (`interim`). It changes no byte, and adds nothing but that 100.
//! Neighbours: `server` puts it around its HTTP/2 connections, `origin` around its own.
//!
//! Decision: bytes that we send earn frames, so that a peer that is served may confirm each
//! piece; the answer to a PING earns less than a PING costs. One frame too many ends the
//! connection through h2: from there on h2 reads one header block in more CONTINUATION frames
//! than it accepts. Its answer to that is GOAWAY with ENHANCE_YOUR_CALM and the last stream it
//! worked on, which this module does not know.

use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

mod fragments;
mod interim;
mod peer;
mod sent;
mod window;

use fragments::{BlockReadState, HeaderBlockReader};
use interim::ContinueInjector;
use peer::PeerReader;
use sent::SentContent;
use window::WindowReader;

pub use fragments::FragmentPaths;
pub use peer::Http2PeerState;
pub use window::SendWindow;

/// Bytes that begin a frame (RFC 9113 §4.1).
const HEAD: usize = 9;
/// Bytes that a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
/// A flag of DATA and HEADERS.
const END_STREAM: u8 = 1;

/// Resets by the peer: more than a client needs that changes its mind, less than an attack.
const RESETS: FrameAllowance = FrameAllowance {
    burst: 256,
    per_second: 64,
    bytes_each: 512,
};
/// Frames that carry nothing. Bytes: for each small message two windows may be opened.
const IDLE: FrameAllowance = FrameAllowance {
    burst: 1_024,
    per_second: 256,
    bytes_each: 48,
};
/// The same for an origin, whose HEADERS count as well, since it may send one head after another
/// (1xx). Even the shortest request earns enough for its response and trailers.
const IDLE_OF_ORIGIN: FrameAllowance = FrameAllowance {
    bytes_each: 12,
    ..IDLE
};

/// A connection that is ended when its peer sends too many frames that do nothing.
pub struct MeteredConnection<T> {
    io: T,
    scan: FrameScanner,
    /// Only towards a client.
    interim: Option<ContinueInjector>,
    /// If set, what is sent to an origin is counted.
    content: Option<SentContent>,
    /// Set once the connection is being ended: how much h2 has read of what it gets instead of
    /// frames.
    ended: Option<usize>,
}

/// Finds where frames begin in the bytes that pass, and counts them.
struct FrameScanner {
    /// Bytes that are left of the present frame.
    skip: u32,
    head: [u8; HEAD],
    /// How many bytes of `head` were read.
    have: usize,
    /// If set, what the peer says about windows is noted.
    windows: Option<WindowReader>,
    /// If set, what an origin says about the connection is noted.
    peer: Option<PeerReader>,
    counts_headers: bool,
    /// Reads the header blocks of a client.
    blocks: Option<HeaderBlockReader>,
    resets: FrameTokenBucket,
    idle: FrameTokenBucket,
    spent: bool,
}

/// How many frames are free, and what earns more of them.
#[derive(Clone, Copy)]
struct FrameAllowance {
    burst: u32,
    per_second: u32,
    /// Bytes sent that earn one more frame.
    bytes_each: u64,
}

/// A token bucket that reads the clock only when it is empty.
struct FrameTokenBucket {
    allowance: FrameAllowance,
    left: u32,
    filled: Instant,
    sent: u64,
}

impl<T> MeteredConnection<T> {
    /// For a connection from a client, from its first byte. Paths with a fragment go to `found`.
    pub fn client(io: T, found: Arc<FragmentPaths>) -> Self {
        let mut metered = Self::new(io, PREFACE, IDLE, false);
        metered.scan.blocks = Some(HeaderBlockReader::new(found));
        metered.interim = Some(ContinueInjector::default());
        metered
    }

    /// Also notes in `window` what the peer says about windows.
    pub fn with_window(mut self, window: Arc<SendWindow>) -> Self {
        self.scan.windows = Some(WindowReader::new(window));
        self
    }

    /// The same for an origin, and also notes what the content that is sent uses up.
    pub fn with_used_window(mut self, window: Arc<SendWindow>) -> Self {
        self.content = Some(SentContent::new(Arc::clone(&window)));
        self.with_window(window)
    }

    /// Also notes in `state` what the origin says about the connection.
    pub fn with_peer(mut self, state: Arc<Http2PeerState>) -> Self {
        self.scan.peer = Some(PeerReader::new(state));
        self
    }

    /// For a connection to an origin.
    pub fn origin(io: T) -> Self {
        Self::new(io, 0, IDLE_OF_ORIGIN, true)
    }

    fn new(io: T, preface: u32, idle: FrameAllowance, counts_headers: bool) -> Self {
        let now = Instant::now();
        let scan = FrameScanner {
            skip: preface,
            head: [0; HEAD],
            have: 0,
            windows: None,
            peer: None,
            counts_headers,
            blocks: None,
            resets: FrameTokenBucket::full(RESETS, now),
            idle: FrameTokenBucket::full(idle, now),
            spent: false,
        };
        Self {
            io,
            scan,
            interim: None,
            content: None,
            ended: None,
        }
    }

    /// Counts the first `written` bytes of `pieces`, which were written.
    fn sent<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, written: usize) {
        self.scan.resets.sent += written as u64;
        self.scan.idle.sent += written as u64;
        if self.interim.is_none() && self.content.is_none() {
            return;
        }
        let mut left = written;
        for piece in pieces {
            let now = &piece[..piece.len().min(left)];
            left -= now.len();
            if let Some(interim) = &mut self.interim {
                interim.wrote(now);
            }
            if let Some(content) = &mut self.content {
                content.wrote(now);
            }
        }
    }

    /// Queues a 100 for each stream that waits for one according to what was read.
    fn answer_waiting(&mut self) {
        let waiting = self
            .scan
            .blocks
            .as_mut()
            .map(HeaderBlockReader::take_waiting);
        if let (Some(interim), Some(waiting)) = (&mut self.interim, waiting) {
            let takes = self
                .scan
                .windows
                .as_ref()
                .is_none_or(WindowReader::keeps_table);
            let waiting = waiting.into_iter().filter(|_| takes);
            waiting.for_each(|stream| interim.go_on(stream));
        }
    }
}

impl<T: AsyncWrite + Unpin> MeteredConnection<T> {
    /// Writes the 100s that may come before hyper's next bytes. Returns how many of those bytes may
    /// be written now.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(interim) = &mut self.interim else {
            return Poll::Ready(Ok(usize::MAX));
        };
        ready!(interim.poll_write(cx, &mut self.io))?;
        Poll::Ready(Ok(interim.most()))
    }
}

impl FrameScanner {
    /// Looks at the frames that begin in `bytes`. If one was too many, returns where that frame
    /// ends.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        loop {
            let skipped = rest.len().min(self.skip as usize);
            if let Some(windows) = &mut self.windows {
                windows.payload(&rest[..skipped]);
            }
            if let Some(peer) = &mut self.peer {
                peer.payload(&rest[..skipped]);
            }
            if let Some(blocks) = &mut self.blocks
                && skipped > 0
                && blocks.take(&rest[..skipped]) == BlockReadState::Over
            {
                self.blocks = None;
            }
            rest = &rest[skipped..];
            self.skip -= skipped as u32;
            if self.spent && self.skip == 0 {
                return Some(bytes.len() - rest.len());
            }
            let taken = rest.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            rest = &rest[taken..];
            if self.have < HEAD {
                return None;
            }
            self.have = 0;
            self.begin_frame();
        }
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        if let Some(windows) = &mut self.windows {
            windows.frame(&self.head);
        }
        if let Some(peer) = &mut self.peer {
            peer.frame(&self.head, self.skip);
        }
        let free = match kind {
            DATA => self.skip > 0 || flags & END_STREAM != 0,
            HEADERS => !self.counts_headers,
            _ => false,
        };
        let bucket = match kind {
            RST_STREAM => &mut self.resets,
            _ => &mut self.idle,
        };
        self.spent |= !free && !bucket.take();
        if let Some(blocks) = &mut self.blocks
            && blocks.begin(&self.head) == BlockReadState::Over
        {
            self.blocks = None;
        }
    }
}

impl FrameTokenBucket {
    fn full(allowance: FrameAllowance, now: Instant) -> Self {
        Self {
            allowance,
            left: allowance.burst,
            filled: now,
            sent: 0,
        }
    }

    fn take(&mut self) -> bool {
        if self.left == 0 {
            self.fill();
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Adds the frames that time and bytes have earned since the last call.
    fn fill(&mut self) {
        let now = Instant::now();
        let FrameAllowance {
            burst,
            per_second,
            bytes_each,
        } = self.allowance;
        // A minute fills the bucket in any case.
        let waited = (now - self.filled).min(Duration::from_secs(60));
        let by_time = waited.as_millis() as u64 * u64::from(per_second) / 1_000;
        let earned = by_time + self.sent / bytes_each;
        self.left = earned.min(u64::from(burst)) as u32;
        self.filled = now;
        self.sent = 0;
    }
}

/// Writes what makes h2 end a connection, from its byte `at` on: HEADERS of stream 1, then
/// CONTINUATION without end, all empty. Returns the next `at`.
fn put_endless_block(at: usize, into: &mut ReadBuf<'_>) -> usize {
    let mut bytes = [0; 64 * HEAD];
    for (n, head) in bytes.chunks_exact_mut(HEAD).enumerate() {
        let first = at < HEAD && n == 0;
        head[3] = if first { HEADERS } else { CONTINUATION };
        head[HEAD - 1] = 1;
    }
    let from = at % HEAD;
    let count = into.remaining().min(bytes.len() - from);
    into.put_slice(&bytes[from..from + count]);
    at + count
}

impl<T: AsyncRead + Unpin> AsyncRead for MeteredConnection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.is_none() {
            let before = into.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
            let end = self.scan.pass(&into.filled()[before..]);
            self.answer_waiting();
            let Some(whole) = end else {
                return Poll::Ready(Ok(()));
            };
            tracing::debug!(
                "HTTP/2 connection closed: the peer sent too many frames that have no effect"
            );
            into.set_filled(before + whole);
            self.ended = Some(0);
        }
        self.ended = self.ended.map(|at| put_endless_block(at, into));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredConnection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = ready!(self.poll_interim(cx))?;
        let bytes = &bytes[..bytes.len().min(most)];
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.sent(iter::once(bytes), written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let most = ready!(self.poll_interim(cx))?;
        if most != usize::MAX {
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(cx, first.map_or(&[], |piece| piece));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, pieces))?;
        self.sent(pieces.iter().map(|piece| &**piece), written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 3];
        frame.resize(HEAD + payload, 7);
        frame
    }

    const PING: u8 = 6;

    /// What h2 would read of these bytes, and whether the connection was ended.
    async fn read(bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let mut metered = MeteredConnection::origin(bytes);
        let mut piece = vec![0; step];
        loop {
            let count = metered.read(&mut piece).await.unwrap();
            read.extend_from_slice(&piece[..count]);
            if count == 0 || metered.ended.is_some_and(|at| at > 5 * HEAD) {
                return (read, metered.ended.is_some());
            }
        }
    }

    #[tokio::test]
    async fn frames_that_carry_something_are_free_however_they_are_cut_into_reads() {
        let frames = [frame(DATA, 0, 200), frame(DATA, END_STREAM, 0)].concat();
        let bytes = frames.repeat(3_000);
        for step in [1, 7, 9, 218, 4_096] {
            assert_eq!(read(&bytes, step).await, (bytes.clone(), false), "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_too_many_is_the_last_and_an_endless_header_block_follows() {
        for (kind, burst, payload) in [
            (PING, IDLE.burst, 8),
            (DATA, IDLE.burst, 0),
            (0x77, IDLE.burst, 200),
            (HEADERS, IDLE.burst, 1),
            (RST_STREAM, RESETS.burst, 4),
        ] {
            let flood = frame(kind, 0, payload).repeat(2 * burst as usize);
            let allowed = (burst as usize + 1) * (HEAD + payload);
            for step in [1, 10, 16_384] {
                let (read, ended) = read(&flood, step).await;
                assert!(ended, "kind {kind}, {step} bytes at a time");
                assert_eq!(read[..allowed], flood[..allowed]);
                let block = &read[allowed..];
                assert_eq!(block[..HEAD], [0, 0, 0, HEADERS, 0, 0, 0, 0, 1]);
                let more = block[HEAD..].chunks_exact(HEAD);
                assert!(more.len() >= 4 && more.into_iter().all(|head| head[3] == CONTINUATION));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_bytes_sent_earn_frames() {
        let mut bucket = FrameTokenBucket::full(IDLE, Instant::now());
        assert!((0..IDLE.burst).all(|_| bucket.take()) && !bucket.take());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((0..IDLE.per_second).all(|_| bucket.take()) && !bucket.take());
        bucket.sent = 10 * IDLE.bytes_each;
        assert!((0..10).all(|_| bucket.take()) && !bucket.take());
        tokio::time::advance(Duration::from_secs(100_000)).await;
        bucket.sent = u64::MAX;
        assert!((0..IDLE.burst).all(|_| bucket.take()));
    }

    #[tokio::test]
    async fn what_is_written_is_counted_and_passes() {
        let mut metered = MeteredConnection::client(Vec::new(), Arc::default());
        metered.write_all(&[1; 1_000]).await.unwrap();
        assert_eq!((metered.io.len(), metered.scan.idle.sent), (1_000, 1_000));
        assert_eq!(metered.scan.pass(&frame(PING, 0, 15)), None, "the preface");
        assert_eq!(metered.scan.idle.left, IDLE.burst);
    }
}
