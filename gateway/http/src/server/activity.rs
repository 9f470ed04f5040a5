//! What happens on a connection, as counters and flags. The clock is read once a request.
//!
//! Neighbours: `wire` and `service` write it, `watch` reads it after each poll of the
//! connection. HTTP/2 streams are tasks of their own, hence atomics; but all tasks of a
//! connection run on the thread that accepted it, hence no atomic additions.

use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use lamina_base::turn_clock;

use super::early::InterimQueue;
use super::send_queue::SendQueue;
use crate::config::Protocol;
use crate::frames::SendWindow;
use crate::guard::framing::FramingFault;
use crate::memory::ConnectionMemory;
use crate::memory::stored::AnswerCut;

/// What happens on a connection.
pub(super) struct ConnectionActivity {
    pub(super) protocol: Protocol,
    /// Interim answers that wait until they may be sent.
    pub(super) early: InterimQueue,
    opened: Instant,
    /// When the last request began, in nanoseconds since `opened`.
    began: AtomicU64,
    in_flight: AtomicU32,
    served: AtomicU64,
    /// HTTP/1: some bytes of a head were read, but not all.
    head_begun: AtomicBool,
    blocked: AtomicBool,
    /// HTTP/2: what is left of the client's window for the whole connection.
    pub(super) window: Arc<SendWindow>,
    /// Bytes that the kernel took.
    progress: AtomicU64,
    /// Tells how many of them the kernel still holds.
    pub(super) queue: SendQueue,
    /// Counts the memory that the connection's answers hold.
    pub(super) memory: Arc<ConnectionMemory>,
    /// HTTP/1: ends the answer under way, and the connection with it.
    cut: OnceLock<Arc<AnswerCut>>,
    /// HTTP/2: an answer was cut because of its memory, which the connection does not let go.
    clogged: AtomicBool,
    /// The task that drives the connection.
    driver: AtomicWaker,
    /// HTTP/2: bytes of answers that went out in one piece and are not written yet.
    direct_bytes: AtomicUsize,
    mode: AtomicU8,
    closing: AtomicBool,
    /// HTTP/1: whether `wire` should look whether the client is still there.
    look: AtomicBool,
    /// HTTP/1: the number of the first message with a fault, from 1; 0 for none. `fault` is its
    /// code.
    faulty: AtomicU64,
    fault: AtomicU8,
}

/// What a connection is waiting for. Two equal values mean that nothing has moved in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionPhase {
    /// A head from the client.
    Head,
    /// The next request of the client, after `served` of them.
    Idle { served: u64 },
    /// The handler's answer.
    Serving,
    /// The client, which must take what we have for it.
    Stalled { progress: u64 },
    /// The client, which must close its side now that we have closed ours.
    Closing,
}

/// What the bytes on the wire are.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum WireMode {
    Plain,
    /// The protocol was switched.
    Tunnel,
    /// The time for a head is over: it is answered so, and nothing more is read.
    Expired,
    /// The time for a request is over: nothing more is read.
    Over,
}

/// A request under way, from its head to the end of its response.
pub(super) struct InFlight {
    pub(super) activity: Arc<ConnectionActivity>,
}

impl ConnectionActivity {
    pub(super) fn new(protocol: Protocol, memory: ConnectionMemory) -> Self {
        Self {
            protocol,
            early: InterimQueue::default(),
            opened: Instant::now(),
            began: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            served: AtomicU64::new(0),
            head_begun: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            window: Arc::default(),
            progress: AtomicU64::new(0),
            queue: SendQueue::default(),
            memory: Arc::new(memory),
            cut: OnceLock::new(),
            clogged: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            direct_bytes: AtomicUsize::new(0),
            mode: AtomicU8::new(WireMode::Plain as u8),
            closing: AtomicBool::new(false),
            look: AtomicBool::new(false),
            faulty: AtomicU64::new(0),
            fault: AtomicU8::new(0),
        }
    }

    pub(super) fn phase(&self) -> ConnectionPhase {
        let served = self.served.load(Relaxed);
        let idle = self.in_flight.load(Relaxed) == 0;
        if self.blocked.load(Relaxed) || (!idle && !self.window.is_open()) {
            return ConnectionPhase::Stalled {
                progress: self.progress(),
            };
        }
        match idle {
            _ if self.is_closing() => ConnectionPhase::Closing,
            false => ConnectionPhase::Serving,
            true if served == 0 || self.head_begun.load(Relaxed) => ConnectionPhase::Head,
            true => ConnectionPhase::Idle { served },
        }
    }

    /// When the last request began.
    pub(super) fn began(&self) -> Instant {
        self.opened + Duration::from_nanos(self.began.load(Relaxed))
    }

    /// Bytes that the kernel took.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// Bytes that the client has acknowledged. Asks the kernel.
    pub(super) fn acknowledged(&self) -> u64 {
        self.progress().saturating_sub(self.queue.held())
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether the connection as a whole takes more bytes of answers at the moment.
    pub(super) fn takes_more(&self) -> bool {
        !self.blocked.load(Relaxed) && self.window.is_open()
    }

    /// The handle that ends an answer which begins now. With HTTP/1 all answers of a connection
    /// share one.
    pub(super) fn cut_of_answer(&self) -> Arc<AnswerCut> {
        let new = || Arc::new(AnswerCut::new(Arc::clone(&self.memory)));
        match self.protocol {
            Protocol::Http1 => Arc::clone(self.cut.get_or_init(new)),
            Protocol::Http2 | Protocol::Http3 => new(),
        }
    }

    /// Whether the connection must end because of the memory that its answers hold.
    pub(super) fn is_cut(&self) -> bool {
        self.clogged.load(Relaxed) || self.cut.get().is_some_and(|cut| cut.is_cut())
    }

    /// Sets the task that drives the connection.
    pub(super) fn driven_by(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Ends the connection: it does not let go the memory of an answer that was cut (HTTP/2).
    pub(super) fn clog(&self) {
        self.clogged.store(true, Relaxed);
        self.driver.wake();
    }

    /// Bytes of answers that went out in one piece and are not written yet.
    pub(super) fn direct_bytes(&self) -> usize {
        self.direct_bytes.load(Relaxed)
    }

    pub(super) fn direct_bytes_wait(&self, bytes: usize) {
        let waiting = self.direct_bytes() + bytes;
        self.direct_bytes.store(waiting, Relaxed);
    }

    pub(super) fn direct_bytes_left(&self, bytes: usize) {
        let waiting = self.direct_bytes().saturating_sub(bytes);
        self.direct_bytes.store(waiting, Relaxed);
    }

    pub(super) fn mode(&self) -> WireMode {
        match self.mode.load(Relaxed) {
            mode if mode == WireMode::Plain as u8 => WireMode::Plain,
            mode if mode == WireMode::Tunnel as u8 => WireMode::Tunnel,
            mode if mode == WireMode::Expired as u8 => WireMode::Expired,
            _ => WireMode::Over,
        }
    }

    /// Notes that the time for the next request is over. A head that has begun is answered.
    pub(super) fn expire(&self) {
        let mode = match self.head_begun.load(Relaxed) {
            true => WireMode::Expired,
            false => WireMode::Over,
        };
        self.mode.store(mode as u8, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Asks `wire` to look whether the client is still there.
    pub(super) fn look(&self) {
        self.look.store(true, Relaxed);
    }

    /// Whether `wire` should look; true once for each [`look`](Self::look).
    pub(super) fn takes_look(&self) -> bool {
        let due = self.look.load(Relaxed);
        if due {
            self.look.store(false, Relaxed);
        }
        due
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Notes the fault that the guard found in the message with this number.
    pub(super) fn found(&self, message: u64, fault: FramingFault) {
        self.fault.store(fault as u8, Relaxed);
        self.faulty.store(message, Relaxed);
    }

    /// The fault of the request that began last, if it has one (HTTP/1).
    pub(super) fn fault(&self) -> Option<FramingFault> {
        let faulty = self.faulty.load(Relaxed);
        if faulty == 0 {
            return None;
        }
        let begun = self.served.load(Relaxed) + u64::from(self.in_flight.load(Relaxed));
        FramingFault::of(self.fault.load(Relaxed)).filter(|_| begun >= faulty)
    }

    /// Notes whether the bytes that were read end inside a head (HTTP/1).
    pub(super) fn reads_head(&self, begun: bool) {
        self.head_begun.store(begun, Relaxed);
    }

    /// Notes what was written. `taken` is the count of all bytes that the kernel took, where that
    /// is not the same.
    pub(super) fn wrote(
        &self,
        written: Poll<io::Result<usize>>,
        taken: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        self.blocked.store(written.is_pending(), Relaxed);
        if let Some(taken) = taken {
            self.progress.store(taken, Relaxed);
        } else if let Poll::Ready(Ok(count)) = written {
            let progress = self.progress() + count as u64;
            self.progress.store(progress, Relaxed);
        }
        written
    }

    /// Notes the flush of a transport that holds bytes back: until they are gone, the client is
    /// waited for.
    pub(super) fn flushed(&self, flushed: &Poll<io::Result<()>>, taken: u64) {
        self.blocked.store(flushed.is_pending(), Relaxed);
        self.progress.store(taken, Relaxed);
    }
}

impl InFlight {
    pub(super) fn begin(activity: &Arc<ConnectionActivity>) -> Self {
        let began = turn_clock::now()
            .saturating_duration_since(activity.opened)
            .as_nanos() as u64;
        activity.began.store(began, Relaxed);
        activity
            .in_flight
            .store(activity.in_flight.load(Relaxed) + 1, Relaxed);
        Self {
            activity: Arc::clone(activity),
        }
    }

    /// The response switches protocols: from here on the bytes are not HTTP.
    pub(super) fn tunnel(&self) {
        self.activity.mode.store(WireMode::Tunnel as u8, Relaxed);
    }

    /// The final answer is here: no interim answer may be sent before it any more.
    pub(super) fn answered(&self) {
        self.activity.early.close();
    }

    /// The connection took this many bytes of the answer's content.
    pub(super) fn sent(&self, bytes: usize) {
        if self.activity.protocol == Protocol::Http2 {
            self.activity.window.used(bytes);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let ConnectionActivity {
            served, in_flight, ..
        } = &*self.activity;
        served.store(served.load(Relaxed) + 1, Relaxed);
        in_flight.store(in_flight.load(Relaxed) - 1, Relaxed);
    }
}
