//! Which of the answers of one connection goes first (RFC 9218).
//!
//! quinn sends what it holds by the priority of its streams. That alone is not enough: its buffer
//! and the window of the connection are shared, and a client that reads slowly finds them full of
//! answers that it wants last. So writers that wait for room take turns: when quinn has room again,
//! those of a higher rank try first. None waits for another that could not write anyway, since the
//! window of its own stream is closed: quinn does not wake that one.
//!
//! Ranks: first by urgency; of the same urgency, one answer after the other in the order of the
//! requests, then those that are incremental, which share. A client that never says a priority
//! knows none, and all its answers share.
//!
//! Neighbours: `one_way` brings the updates of the client, `respond` writes by turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quinn::{SendStream, VarInt};

use crate::http3::Http3Code;
use crate::priority::{LEAST_URGENT, PriorityParameters};

/// The urgency of an answer of which nothing is said (RFC 9218 §4.1).
const USUAL_URGENCY: u8 = 3;

/// The ranks of one urgency.
const RANKS: i32 = 1 << 28;

/// The rank of an answer of which nothing is said, and of a stream of quinn.
const USUAL_RANK: i32 = 0;

/// The priorities of the answers of one connection.
pub(super) struct AnswerOrder {
    /// Whether answers differ in rank at all. Where they don't, nothing is looked at.
    is_ranked: AtomicBool,
    state: Mutex<OrderState>,
    max_streams: u64,
}

#[derive(Default)]
struct OrderState {
    /// The client has said a priority, so what it does not say has a meaning, too.
    knows_priorities: bool,
    /// How many requests have begun: the number of the next one.
    begun: u64,
    /// By the number of the request.
    open: HashMap<u64, OpenAnswer>,
    /// What was said of requests that have not begun.
    told_before: HashMap<u64, PriorityParameters>,
    /// Writers that wait.
    waiting: usize,
}

/// An answer that is under way.
#[derive(Default)]
struct OpenAnswer {
    by_request: Option<PriorityParameters>,
    by_update: Option<PriorityParameters>,
    by_origin: Option<PriorityParameters>,
    rank: i32,
    /// Its writer, if that waits for room.
    writer: Option<Arc<WaitingWriter>>,
    /// Its task, if all of it is written and it waits for the acknowledgement.
    finished: Option<Waker>,
    /// One of a higher rank wrote since this was looked at.
    was_outranked: bool,
}

/// A writer that waits for room. quinn wakes it, and it is known from then on that it is due.
#[derive(Default)]
pub(super) struct WaitingWriter {
    /// It was woken and has not tried since.
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WaitingWriter {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Relaxed);
        self.task.wake();
    }
}

/// The place of one answer in the order, until it is dropped.
pub(super) struct AnswerTurn {
    order: Arc<AnswerOrder>,
    number: u64,
    /// The rank that the stream has in quinn.
    set: i32,
    /// Its writer, since it has waited for the first time.
    writer: Option<Arc<WaitingWriter>>,
}

impl AnswerOrder {
    pub(super) fn new(max_streams: u32) -> Arc<Self> {
        Arc::new(Self {
            is_ranked: AtomicBool::new(false),
            state: Mutex::default(),
            max_streams: max_streams.into(),
        })
    }

    /// Takes in what PRIORITY_UPDATE says of a request (RFC 9218 §7.2). A value that can't be read
    /// is ignored, and so is what is said of a request that has ended.
    ///
    /// # Errors
    /// When no request of the client can have this id.
    pub(super) fn update(&self, stream: u64, value: &[u8]) -> Result<(), Http3Code> {
        let number = stream / 4;
        let mut state = self.state.lock();
        if !stream.is_multiple_of(4) || number >= state.begun + self.max_streams {
            return Err(Http3Code::IdError);
        }
        let Some(said) = PriorityParameters::parse(value) else {
            return Ok(());
        };
        if let Some(answer) = state.open.get_mut(&number) {
            answer.by_update = Some(said);
        } else if number >= state.begun {
            state.told_before.insert(number, said);
        }
        state.knows_priorities = true;
        self.rank_all(&mut state);
        Ok(())
    }

    /// Notes that a request has come, though it is not served.
    pub(super) fn pass_over(&self, stream: &SendStream) {
        let mut state = self.state.lock();
        state.begun = state.begun.max(number_of(stream) + 1);
    }

    /// Ranks all answers again, and wakes the tasks whose streams change.
    fn rank_all(&self, state: &mut OrderState) {
        self.is_ranked.store(true, Relaxed);
        let knows_priorities = state.knows_priorities;
        for (number, answer) in &mut state.open {
            let rank = answer.ranked(*number, knows_priorities);
            if rank != std::mem::replace(&mut answer.rank, rank) {
                answer.writer.iter().for_each(|writer| writer.task.wake());
                answer.finished.iter().for_each(Waker::wake_by_ref);
            }
        }
    }
}

/// The number of the request that has this stream.
fn number_of(stream: &SendStream) -> u64 {
    VarInt::from(stream.id()).into_inner() / 4
}

impl OpenAnswer {
    /// The rank of an answer: that with the higher number goes first. Where nothing is said, it is
    /// the one that a stream of quinn has from the start.
    fn ranked(&self, number: u64, knows_priorities: bool) -> i32 {
        let by_client = self.by_update.or(self.by_request).unwrap_or_default();
        let said = self.by_origin.unwrap_or_default().or(by_client);
        let urgency = said.urgency.unwrap_or(USUAL_URGENCY).min(LEAST_URGENT);
        let least = (i32::from(USUAL_URGENCY) - i32::from(urgency)) * RANKS;
        match said.is_incremental.unwrap_or(!knows_priorities) {
            true => least,
            false => {
                let later = i32::try_from(number).unwrap_or(i32::MAX).min(RANKS - 2);
                least + RANKS - 1 - later
            }
        }
    }
}

impl AnswerTurn {
    /// The place of the request that has this stream.
    pub(super) fn begin(order: &Arc<AnswerOrder>, stream: &SendStream) -> Self {
        let number = number_of(stream);
        let mut state = order.state.lock();
        state.begun = state.begun.max(number + 1);
        let mut answer = OpenAnswer {
            by_update: state.told_before.remove(&number),
            ..OpenAnswer::default()
        };
        answer.rank = answer.ranked(number, state.knows_priorities);
        state.open.insert(number, answer);
        drop(state);
        let mut turn = Self {
            order: Arc::clone(order),
            number,
            set: USUAL_RANK,
            writer: None,
        };
        turn.apply(stream);
        turn
    }

    /// Takes in what the request says of its answer.
    pub(super) fn asked(&mut self, said: Option<PriorityParameters>, stream: &SendStream) {
        let Some(said) = said else { return };
        self.change(stream, |state, number| {
            state.knows_priorities = true;
            if let Some(answer) = state.open.get_mut(&number) {
                answer.by_request = Some(said);
            }
        });
    }

    /// Takes in what the origin says of its answer, which goes before what the client says.
    pub(super) fn answered(&mut self, said: Option<PriorityParameters>, stream: &SendStream) {
        let Some(said) = said else { return };
        self.change(stream, |state, number| {
            if let Some(answer) = state.open.get_mut(&number) {
                answer.by_origin = Some(said);
            }
        });
    }

    fn change(&mut self, stream: &SendStream, change: impl FnOnce(&mut OrderState, u64)) {
        let mut state = self.order.state.lock();
        change(&mut state, self.number);
        self.order.rank_all(&mut state);
        drop(state);
        self.apply(stream);
    }

    /// Gives the stream the rank of its answer.
    pub(super) fn apply(&mut self, stream: &SendStream) {
        if !self.order.is_ranked.load(Relaxed) {
            return;
        }
        let state = self.order.state.lock();
        let rank = state.open.get(&self.number).map(|answer| answer.rank);
        drop(state);
        if let Some(rank) = rank.filter(|rank| self.set != *rank) {
            self.set = rank;
            // Fails only if the stream has ended.
            let _ = stream.set_priority(rank);
        }
    }

    /// Ready when the writer may try: when none of a higher rank is due.
    pub(super) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.order.is_ranked.load(Relaxed) {
            return Poll::Ready(());
        }
        let state = self.order.state.lock();
        let Some(rank) = state.open.get(&self.number).map(|answer| answer.rank) else {
            return Poll::Ready(());
        };
        let is_due = |writer: &Arc<WaitingWriter>| writer.is_due.load(Relaxed);
        let goes_first =
            |answer: &OpenAnswer| answer.rank > rank && answer.writer.as_ref().is_some_and(is_due);
        if state.waiting > 0 && state.open.values().any(goes_first) {
            // Those are woken already: this one is polled behind them.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whom quinn is to wake when there is room.
    pub(super) fn waker(&mut self, cx: &Context<'_>) -> Waker {
        if !self.order.is_ranked.load(Relaxed) {
            return cx.waker().clone();
        }
        let writer = self.writer.get_or_insert_default();
        writer.is_due.store(false, Relaxed);
        writer.task.register(cx.waker());
        Waker::from(Arc::clone(writer))
    }

    /// Notes what became of a try: whether it waits for room, and else that it wrote.
    pub(super) fn tried(&self, is_pending: bool) {
        if !self.order.is_ranked.load(Relaxed) {
            return;
        }
        let mut state = self.order.state.lock();
        if is_pending {
            return state.note_writer(self.number, self.writer.clone());
        }
        state.note_writer(self.number, None);
        let Some(rank) = state.open.get(&self.number).map(|answer| answer.rank) else {
            return;
        };
        let lower = state.open.values_mut().filter(|answer| answer.rank < rank);
        lower.for_each(|answer| answer.was_outranked = true);
    }

    /// Notes that the writer does not wait any more.
    pub(super) fn leaves(&self) {
        if self.order.is_ranked.load(Relaxed) {
            self.order.state.lock().note_writer(self.number, None);
        }
    }

    /// Notes the task that waits until all is acknowledged, so that its stream follows its rank.
    pub(super) fn follow(&mut self, cx: &Context<'_>, stream: &SendStream) {
        if let Some(answer) = self.order.state.lock().open.get_mut(&self.number) {
            answer.finished = Some(cx.waker().clone());
        }
        self.apply(stream);
    }

    /// Tells later whether others went first.
    pub(super) fn watch_outranked(&self) -> OutrankedWatch {
        OutrankedWatch {
            order: Arc::clone(&self.order),
            number: self.number,
        }
    }
}

/// Tells whether answers of a higher rank went first.
pub(super) struct OutrankedWatch {
    order: Arc<AnswerOrder>,
    number: u64,
}

impl OutrankedWatch {
    /// Whether one of a higher rank went on since this was asked the last time: then it is not the
    /// client alone that the answer waits for.
    pub(super) fn was_there(&self) -> bool {
        if !self.order.is_ranked.load(Relaxed) {
            return false;
        }
        let mut state = self.order.state.lock();
        let answer = state.open.get_mut(&self.number);
        answer.is_some_and(|answer| std::mem::take(&mut answer.was_outranked))
    }
}

impl OrderState {
    /// Notes the writer of an answer, if it waits for room.
    fn note_writer(&mut self, number: u64, writer: Option<Arc<WaitingWriter>>) {
        let Some(answer) = self.open.get_mut(&number) else {
            return;
        };
        let did = usize::from(answer.writer.is_some());
        let does = usize::from(writer.is_some());
        self.waiting = self.waiting + does - did;
        answer.writer = writer;
    }
}

impl Drop for AnswerTurn {
    fn drop(&mut self) {
        let mut state = self.order.state.lock();
        state.note_writer(self.number, None);
        state.open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Option<PriorityParameters> {
        PriorityParameters::parse(value.as_bytes())
    }

    fn rank(number: u64, asked: &str, updated: Option<&str>, origin: Option<&str>) -> i32 {
        let answer = OpenAnswer {
            by_request: said(asked),
            by_update: updated.and_then(said),
            by_origin: origin.and_then(said),
            ..OpenAnswer::default()
        };
        answer.ranked(number, true)
    }

    #[test]
    fn urgency_then_the_order_of_requests_then_those_that_share() {
        let ranks = [
            rank(9, "u=0", None, None),
            rank(8, "u=0, i", None, None),
            rank(7, "u=1", None, None),
            rank(1, "", None, None),
            rank(2, "", None, None),
            rank(u64::MAX >> 2, "", None, None),
            rank(0, "i", None, None),
            rank(0, "u=7", None, None),
            rank(0, "u=7, i", None, None),
        ];
        assert!(
            ranks.is_sorted_by(|first, second| first > second),
            "{ranks:?}"
        );
        assert_eq!(rank(4, "i", None, None), rank(5, "u=3, i", None, None));
        assert!(ranks.iter().all(|rank| *rank < i32::MAX));
    }

    #[test]
    fn an_update_replaces_the_field_and_the_origin_goes_before_both() {
        // An update is a whole: what it leaves out has its usual value (RFC 9218 §7).
        assert_eq!(
            rank(1, "u=1, i", Some("u=5"), None),
            rank(1, "u=5", None, None)
        );
        assert_eq!(rank(1, "u=1, i", Some(""), None), rank(1, "", None, None));
        assert_eq!(
            rank(1, "u=1, i", None, Some("u=6")),
            rank(1, "u=6, i", None, None)
        );
        assert_eq!(
            rank(1, "u=1", Some("u=2"), Some("i")),
            rank(1, "u=2, i", None, None)
        );
    }

    #[test]
    fn answers_to_a_client_that_knows_no_priorities_share() {
        let answer = OpenAnswer::default();
        assert_eq!(answer.ranked(1, false), USUAL_RANK);
        assert_eq!(answer.ranked(2, false), USUAL_RANK);
        assert!(answer.ranked(1, true) > answer.ranked(2, true));
    }

    #[test]
    fn updates_are_for_requests_that_there_can_be_and_take_bounded_memory() {
        let order = AnswerOrder::new(3);
        for (stream, allowed) in [(0, true), (8, true), (12, false), (2, false), (1, false)] {
            assert_eq!(order.update(stream, b"u=1").is_ok(), allowed, "{stream}");
        }
        for _ in 0..100 {
            order.update(4, b"i").unwrap();
        }
        order.update(4, b"no dictionary").unwrap();
        let mut state = order.state.lock();
        assert_eq!(state.told_before.len(), 3);
        assert_eq!(state.told_before.get(&1), said("i").as_ref());
        // One that has begun and ended is forgotten.
        state.begun = 3;
        state.told_before.clear();
        drop(state);
        order.update(0, b"u=1").unwrap();
        assert!(order.state.lock().told_before.is_empty());
    }
}
