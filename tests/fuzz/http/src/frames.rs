//! The meter of HTTP/2 frames: bytes pass unchanged until a frame was one too many, at its end.
//!
//! Input: a line with the lengths of the pieces in which the bytes come, then what a peer sends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lamina_http::frames::MeteredConnection;
use tokio::io::{AsyncRead, ReadBuf};

use fuzz_harness::input;

/// Frames that are free at least: resets, of which fewer are than of others.
const FREE: usize = 256;

pub fn check(data: &[u8]) {
    let end = data
        .iter()
        .position(|&octet| octet == b'\n')
        .unwrap_or(data.len());
    let (line, stream) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    // Floods fit in short inputs.
    let stream = stream.repeat(16);
    let pieces: Vec<usize> = input::texts(line)
        .flat_map(|text| text.split(' '))
        .filter_map(|word| word.parse().ok())
        .filter(|&length| length > 0)
        .collect();
    passed(
        MeteredConnection::origin(Pieces {
            stream: &stream,
            pieces: &pieces,
            turn: 0,
        }),
        &stream,
        0,
    );
    passed(
        MeteredConnection::client(
            Pieces {
                stream: &stream,
                pieces: &pieces,
                turn: 0,
            },
            Arc::default(),
        ),
        &stream,
        24,
    );
}

fn passed(mut metered: MeteredConnection<Pieces<'_>>, stream: &[u8], preface: usize) {
    let mut read = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    while read.len() <= stream.len() {
        let mut space = [0; 1_000];
        let mut into = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut metered).poll_read(&mut cx, &mut into);
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        if into.filled().is_empty() {
            break;
        }
        read.extend_from_slice(into.filled());
    }
    let same = read.iter().zip(stream).take_while(|(a, b)| a == b).count();
    if read != stream {
        // It was ended: behind a whole frame, and after more of them than are free.
        let ends = ends(stream, preface);
        let whole = ends
            .iter()
            .rposition(|&end| end <= same)
            .map_or(0, |at| at + 1);
        assert!(whole > FREE, "{whole} frames, {same} bytes");
    }
}

/// The places where frames end.
fn ends(stream: &[u8], preface: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = preface;
    while let Some(&[high, middle, low]) = stream.get(at..).and_then(|rest| rest.first_chunk()) {
        at += 9 + u32::from_be_bytes([0, high, middle, low]) as usize;
        ends.push(at);
    }
    ends
}

struct Pieces<'a> {
    stream: &'a [u8],
    pieces: &'a [usize],
    turn: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self
            .pieces
            .get(self.turn % self.pieces.len().max(1))
            .copied();
        self.turn += 1;
        let length = piece
            .unwrap_or(usize::MAX)
            .min(into.remaining())
            .min(self.stream.len());
        let (now, later) = self.stream.split_at(length);
        into.put_slice(now);
        self.stream = later;
        Poll::Ready(Ok(()))
    }
}
