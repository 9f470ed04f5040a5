//! One answer on its way to the client, from the first piece that is handed to hyper until its
//! last byte is taken.
//!
//! hyper and h2 do not report what they have sent. But they own each [`AnswerPiece`] until its
//! bytes are written, advance it by what was taken, and drop it then; so the pieces report it.
//! Neighbours: `service` hands the pieces out, `stream_task` judges an HTTP/2 stream by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

use super::activity::InFlight;
use crate::memory::stored::{AnswerCut, BodyReadGuard};

/// HTTP/2: an answer hands out another piece when no more than this many bytes of it are unsent.
pub(super) const LOW_WATER: usize = 32 << 10;

/// An answer that is watched until its last byte.
pub(super) struct AnswerProgress {
    in_flight: InFlight,
    unsent: AtomicUsize,
    sent: AtomicU64,
    /// The bytes that had been sent on the whole connection when the last of `sent` was.
    sent_until: AtomicU64,
    /// The task that hands out the pieces.
    giver: AtomicWaker,
    /// Set if the answer reads stored bodies, and may be cut because of their memory.
    cut: Option<Arc<AnswerCut>>,
    _seats: Vec<BodyReadGuard>,
}

/// Some bytes of an answer, owned by hyper.
pub(super) struct AnswerPiece {
    bytes: Bytes,
    of: PieceOwner,
}

/// What a piece belongs to.
enum PieceOwner {
    /// The answer is this one piece; its request is under way as long as the piece exists.
    Whole(InFlight),
    Sending(Arc<AnswerProgress>),
}

impl AnswerProgress {
    pub(super) fn new(
        in_flight: InFlight,
        cut: Option<Arc<AnswerCut>>,
        seats: Vec<BodyReadGuard>,
    ) -> Self {
        Self {
            in_flight,
            unsent: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            sent_until: AtomicU64::new(0),
            giver: AtomicWaker::new(),
            cut,
            _seats: seats,
        }
    }

    /// Sets the task that hands out the pieces. It is woken when there is room for one.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.giver.register(waker);
        self.register_for_cut(waker);
    }

    /// Sets the task that is woken when the answer is cut, and not when there is room.
    pub(super) fn register_for_cut(&self, waker: &std::task::Waker) {
        if let Some(cut) = &self.cut {
            cut.register(waker);
        }
    }

    /// Bytes that were handed out and not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// Bytes that the kernel took.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// The connection's acknowledged bytes reach this count when the client has all of
    /// [`sent`](Self::sent).
    pub(super) fn sent_until(&self) -> u64 {
        self.sent_until.load(Relaxed)
    }

    /// Whether the answer must end because of the memory that it holds.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.is_cut())
    }

    /// Notes that the client takes the answer, as far as its memory is concerned.
    fn moved(&self) {
        if let Some(cut) = &self.cut {
            cut.moved();
        }
    }

    /// Removes bytes from the unsent ones. All pieces of a connection live on one thread.
    fn forget(&self, bytes: usize) {
        let before = self.unsent();
        let left = before.saturating_sub(bytes);
        self.unsent.store(left, Relaxed);
        if left == 0 || (left <= LOW_WATER && before > LOW_WATER) {
            self.giver.wake();
        }
    }
}

impl AnswerPiece {
    /// A piece that is all of an answer.
    pub(super) fn whole(bytes: Bytes, in_flight: InFlight) -> Self {
        in_flight.activity.direct_bytes_wait(bytes.len());
        Self {
            bytes,
            of: PieceOwner::Whole(in_flight),
        }
    }

    /// What is left of it, `most` bytes at most, without taking them.
    pub(super) fn bytes(&self, most: usize) -> Bytes {
        self.bytes.slice(..self.bytes.len().min(most))
    }

    /// A piece of a watched answer.
    pub(super) fn of(sending: &Arc<AnswerProgress>, bytes: Bytes) -> Self {
        let unsent = sending.unsent() + bytes.len();
        sending.unsent.store(unsent, Relaxed);
        Self {
            bytes,
            of: PieceOwner::Sending(Arc::clone(sending)),
        }
    }
}

impl Buf for AnswerPiece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        match &self.of {
            PieceOwner::Whole(in_flight) => {
                in_flight.activity.direct_bytes_left(count);
                in_flight.sent(count);
            }
            PieceOwner::Sending(sending) => {
                sending.in_flight.sent(count);
                sending.sent.store(sending.sent() + count as u64, Relaxed);
                let until = sending.in_flight.activity.progress();
                sending.sent_until.store(until, Relaxed);
                sending.moved();
                sending.forget(count);
            }
        }
    }
}

impl Drop for AnswerPiece {
    fn drop(&mut self) {
        let unsent = self.bytes.len();
        match &self.of {
            PieceOwner::Whole(in_flight) => in_flight.activity.direct_bytes_left(unsent),
            PieceOwner::Sending(_) if unsent == 0 => {}
            PieceOwner::Sending(sending) => sending.forget(unsent),
        }
    }
}
