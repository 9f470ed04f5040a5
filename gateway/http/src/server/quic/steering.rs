//! Datagrams that reach another worker than that of their connection are handed on to it, and those
//! of connections that a process before this one still has, to that process.
//!
//! The filter in the kernel ([`super::socket`]) chooses the right socket for almost all of them. Not
//! where the system does not allow the filter, and not for all segments of a batch that the kernel
//! has put together from several connections of one address (GRO): it reads the first one alone.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::select;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::metrics::QuicMetrics;
use super::passage::{self, EarlierProcess, PassedDatagram};
use crate::quic_identity::QuicIdentity;
use crate::server::thread_work::WorkerThread;

/// The most datagrams that wait for a worker; further ones are lost, as in the kernel's own queue.
const MOST_WAITING: usize = 1_024;

/// The most earlier processes that may still have connections.
const MOST_EARLIER: usize = 8;

/// A datagram on its way to its worker.
struct StrayDatagram {
    octets: Box<[u8]>,
    meta: RecvMeta,
}

/// What all workers of a port share: the ways to each of them, and to the processes before.
pub(in crate::server) struct SteeringGroup {
    workers: Box<[Sender<StrayDatagram>]>,
    /// The sockets of the port, of which the kernel's filter knows.
    sockets: usize,
    pub(super) identity: Arc<QuicIdentity>,
    /// Whether the next process reads the sockets.
    is_handed_over: AtomicBool,
    earlier: ArcSwap<Vec<Arc<EarlierProcess>>>,
    /// Dropped when nothing comes from the next process any more.
    listening: Mutex<Option<mpsc::Sender<()>>>,
}

/// What one worker gets from the others.
pub(in crate::server) struct WorkerInbox {
    worker: usize,
    strays: Receiver<StrayDatagram>,
    group: Arc<SteeringGroup>,
}

/// Where a datagram belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DatagramPlace {
    Worker(usize),
    /// A process before this one, by its generation.
    Earlier(u8),
    /// It is too short to tell, and any worker may drop it.
    Anywhere,
}

impl SteeringGroup {
    /// The group of a port with so many workers and sockets, and the inbox of each worker.
    pub(super) fn new(
        workers: usize,
        sockets: usize,
        identity: &Arc<QuicIdentity>,
        mut earlier: Vec<EarlierProcess>,
    ) -> (Arc<Self>, Vec<WorkerInbox>) {
        let made = (0..workers).map(|_| mpsc::channel(MOST_WAITING));
        let (senders, receivers): (Vec<_>, Vec<_>) = made.unzip();
        // The newest ones come first.
        earlier.truncate(MOST_EARLIER);
        let group = Arc::new(Self {
            workers: senders.into(),
            sockets,
            identity: Arc::clone(identity),
            is_handed_over: AtomicBool::new(false),
            earlier: ArcSwap::from_pointee(earlier.into_iter().map(Arc::new).collect()),
            listening: Mutex::default(),
        });
        let all = receivers.into_iter().enumerate();
        let inboxes = all.map(|(worker, strays)| WorkerInbox {
            worker,
            strays,
            group: Arc::clone(&group),
        });
        let inboxes = inboxes.collect();
        (group, inboxes)
    }

    /// The worker of an id, by the rule of the filter in the kernel where there are as many workers
    /// as sockets.
    fn worker(&self, octet: u8) -> usize {
        let (octet, workers) = (usize::from(octet), self.workers.len().max(1));
        match workers < self.sockets {
            true => octet % self.sockets % workers,
            false => octet % workers,
        }
    }

    fn receiver_of(&self, datagram: &[u8]) -> DatagramPlace {
        let earlier = self.earlier.load();
        if !earlier.is_empty() {
            let is_earlier = |generation| {
                earlier
                    .iter()
                    .any(|process| process.generation == generation)
            };
            if let Some(generation) = self.identity.earlier(datagram, is_earlier) {
                return DatagramPlace::Earlier(generation);
            }
        }
        match worker_octet(datagram) {
            Some(octet) => DatagramPlace::Worker(self.worker(octet)),
            None => DatagramPlace::Anywhere,
        }
    }

    /// Whether datagrams may be for others than the worker that reads them.
    fn has_others(&self) -> bool {
        self.workers.len() > 1 || !self.earlier.load().is_empty()
    }

    fn give(&self, worker: usize, octets: &[u8], meta: RecvMeta) {
        let stray = StrayDatagram {
            octets: octets.into(),
            meta: RecvMeta {
                len: octets.len(),
                stride: octets.len(),
                ..meta
            },
        };
        if let Some(worker) = self.workers.get(worker) {
            // It is lost if there are too many, or the worker has ended.
            let _ = worker.try_send(stray);
        }
    }

    fn pass_to_earlier(&self, generation: u8, octets: &[u8], meta: &RecvMeta) {
        let earlier = self.earlier.load();
        let found = earlier.iter().find(|one| one.generation == generation);
        if found.is_some_and(|process| process.pass(octets, meta) == PassedDatagram::Gone) {
            self.earlier.rcu(|known| {
                let left = known.iter().filter(|one| one.generation != generation);
                left.cloned().collect::<Vec<_>>()
            });
        }
    }

    /// The ways that the next process needs: to this process, on whose `thread` is then heard what
    /// comes, and to those before that still have connections.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(in crate::server) fn ways(
        self: &Arc<Self>,
        thread: &WorkerThread,
    ) -> io::Result<Vec<EarlierProcess>> {
        let (theirs, ours) = passage::pair()?;
        let (stays, ends) = mpsc::channel(1);
        // What listens for a process that has failed ends.
        *self.listening.lock() = Some(stays);
        thread.run(Arc::clone(self).listen(ours, ends));
        let mut ways = vec![EarlierProcess::new(
            self.identity.generation(),
            theirs.into(),
        )];
        for process in self.earlier.load().iter() {
            let way = process.way().try_clone()?;
            ways.push(EarlierProcess::new(process.generation, way.into()));
        }
        Ok(ways)
    }

    /// Hands to the workers what the next process sends.
    async fn listen(self: Arc<Self>, from: UnixDatagram, mut ends: mpsc::Receiver<()>) {
        let from = match tokio::net::UnixDatagram::from_std(from) {
            Ok(from) => from,
            Err(error) => {
                return tracing::error!(%error, "QUIC: nothing is heard of the next process");
            }
        };
        let mut message = vec![0; passage::MOST_OCTETS];
        loop {
            let length = select! {
                received = from.recv(&mut message) => received,
                _ = ends.recv() => return,
            };
            let Ok(length) = length else { return };
            if let Some((datagram, meta)) = passage::read(&message[..length])
                && let Some(octet) = worker_octet(datagram)
            {
                self.give(self.worker(octet), datagram, meta);
            }
        }
    }

    /// Leaves the sockets to the next process.
    pub(in crate::server) fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::SeqCst);
    }

    /// Reads them again: the next process has failed.
    pub(in crate::server) fn take_back(&self) {
        if self.is_handed_over.swap(false, Ordering::SeqCst) {
            // Wakes each worker, which finds nothing in it.
            for worker in 0..self.workers.len() {
                self.give(worker, &[], RecvMeta::default());
            }
        }
    }
}

/// The sockets of one worker: it sends by one, and reads some.
pub(super) struct SteeredSocket {
    sends: Arc<dyn AsyncUdpSocket>,
    reads: Vec<Arc<dyn AsyncUdpSocket>>,
    worker: usize,
    strays: Mutex<Receiver<StrayDatagram>>,
    group: Arc<SteeringGroup>,
    metrics: Arc<QuicMetrics>,
}

impl SteeredSocket {
    pub(super) fn new(
        sends: Arc<dyn AsyncUdpSocket>,
        reads: Vec<Arc<dyn AsyncUdpSocket>>,
        inbox: WorkerInbox,
        metrics: &Arc<QuicMetrics>,
    ) -> Self {
        Self {
            sends,
            reads,
            worker: inbox.worker,
            strays: Mutex::new(inbox.strays),
            group: inbox.group,
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether a datagram is for somebody else.
    fn is_stray(&self, datagram: &[u8]) -> bool {
        match self.group.receiver_of(datagram) {
            DatagramPlace::Worker(worker) => worker != self.worker,
            DatagramPlace::Earlier(_) => true,
            DatagramPlace::Anywhere => false,
        }
    }

    /// Hands on what is for others, and takes it out of the buffer.
    fn hand_on(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let all = &buffer[..meta.len];
        if !all.chunks(stride).any(|datagram| self.is_stray(datagram)) {
            return;
        }
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            match self.group.receiver_of(&buffer[at..end]) {
                DatagramPlace::Worker(worker) if worker != self.worker => {
                    self.metrics.wrong_worker();
                    self.group.give(worker, &buffer[at..end], *meta);
                }
                DatagramPlace::Earlier(generation) => {
                    self.metrics.passed_on();
                    let octets = &buffer[at..end];
                    self.group.pass_to_earlier(generation, octets, meta);
                }
                DatagramPlace::Worker(_) | DatagramPlace::Anywhere => {
                    buffer.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }

    /// The next datagram from another worker, or from the next process.
    fn poll_stray(&self, cx: &mut Context<'_>) -> Poll<StrayDatagram> {
        let mut strays = self.strays.lock();
        loop {
            match ready!(strays.poll_recv(cx)) {
                // It was sent to wake this worker.
                Some(stray) if stray.octets.is_empty() => {}
                Some(stray) => return Poll::Ready(stray),
                // The group has the other ends, so this does not happen.
                None => return Poll::Pending,
            }
        }
    }
}

/// The octet that names the worker. None if a datagram is too short to tell.
fn worker_octet(datagram: &[u8]) -> Option<u8> {
    let is_long = datagram.first()? & 0x80 != 0;
    datagram.get(if is_long { 6 } else { 1 }).copied()
}

impl AsyncUdpSocket for SteeredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.sends).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sends.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(stray), Some(buffer), Some(meta)) =
            (self.poll_stray(cx), buffers.first_mut(), meta.first_mut())
        {
            // A datagram that does not fit is none of ours.
            let length = stray.octets.len().min(buffer.len());
            buffer[..length].copy_from_slice(&stray.octets[..length]);
            *meta = stray.meta;
            meta.len = length;
            return Poll::Ready(Ok(1));
        }
        if self.group.is_handed_over.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        for socket in &self.reads {
            let Poll::Ready(count) = socket.poll_recv(cx, buffers, meta) else {
                continue;
            };
            let count = count?;
            if self.group.has_others() {
                for (buffer, meta) in buffers.iter_mut().zip(&mut *meta).take(count) {
                    self.hand_on(buffer, meta);
                }
            }
            return Poll::Ready(Ok(count));
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sends.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.sends.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.sends.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.sends.may_fragment()
    }
}

impl fmt::Debug for SteeredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteeredSocket")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use quinn::Runtime;
    use quinn::TokioRuntime;

    use super::*;

    /// The sockets of so many workers of a port, none of which is ever read.
    fn steered(workers: usize, sockets: usize, earlier: Vec<EarlierProcess>) -> Vec<SteeredSocket> {
        let identity = Arc::new(QuicIdentity::new(5, b"secret"));
        let (_, inboxes) = SteeringGroup::new(workers, sockets, &identity, earlier);
        let sockets = inboxes.into_iter().map(|inbox| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
            SteeredSocket::new(Arc::clone(&socket), vec![socket], inbox, &Arc::default())
        });
        sockets.collect()
    }

    fn workers(count: usize) -> Vec<SteeredSocket> {
        steered(count, count, Vec::new())
    }

    #[tokio::test]
    async fn what_belongs_to_an_earlier_process_goes_there() {
        let (theirs, ours) = passage::pair().unwrap();
        let workers = steered(2, 2, vec![EarlierProcess::new(4, theirs.into())]);
        let mut buffer = [0x40, 0, 5, 1, 0x40, 0, 4, 2, 0x40, 1, 4, 3];
        let mut meta = RecvMeta {
            len: buffer.len(),
            stride: 4,
            ..RecvMeta::default()
        };
        workers[0].hand_on(&mut buffer, &mut meta);
        assert_eq!(buffer[..meta.len], [0x40, 0, 5, 1]);
        let mut message = [0; 256];
        for expected in [[0x40, 0, 4, 2], [0x40, 1, 4, 3]] {
            let length = ours.recv(&mut message).unwrap();
            let (datagram, _) = passage::read(&message[..length]).unwrap();
            assert_eq!(datagram, expected);
        }
        drop(ours);
        let group = &workers[0].group;
        assert_eq!(group.earlier.load().len(), 1);
        group.pass_to_earlier(4, b"x", &meta);
        assert!(group.earlier.load().is_empty(), "it has ended");
    }

    #[tokio::test]
    async fn each_id_has_one_worker_whatever_the_number_of_sockets() {
        // Workers, sockets, and the worker of each of the first eight numbers.
        for (count, sockets, expected) in [
            (2, 2, [0, 1, 0, 1, 0, 1, 0, 1]),
            (3, 2, [0, 1, 2, 0, 1, 2, 0, 1]),
            (2, 3, [0, 1, 0, 0, 1, 0, 0, 1]),
            (1, 4, [0; 8]),
        ] {
            let workers = steered(count, sockets, Vec::new());
            let found = [0, 1, 2, 3, 4, 5, 6, 7].map(|octet| workers[0].group.worker(octet));
            assert_eq!(found, expected, "{count} workers, {sockets} sockets");
        }
    }

    #[tokio::test]
    async fn each_segment_of_a_batch_goes_to_its_own_worker() {
        let workers = workers(3);
        let segments = [[0x40, 1, 0], [0x40, 0, 1], [0x41, 5, 2], [0x40, 3, 3]];
        let mut buffer = segments.concat();
        // The last one is shorter.
        buffer.extend([0x40, 4]);
        let mut meta = RecvMeta {
            len: buffer.len(),
            stride: 3,
            ..RecvMeta::default()
        };
        workers[0].hand_on(&mut buffer, &mut meta);
        assert_eq!(buffer[..meta.len], [0x40, 0, 1, 0x40, 3, 3]);
        let took = |worker: usize| {
            let mut octets = Vec::new();
            while let Ok(stray) = workers[worker].strays.lock().try_recv() {
                assert_eq!(stray.octets.len(), stray.meta.len);
                octets.push(stray.octets.to_vec());
            }
            octets
        };
        assert_eq!(took(1), [vec![0x40, 1, 0], vec![0x40, 4]]);
        assert_eq!(took(2), [vec![0x41, 5, 2]]);
        assert!(took(0).is_empty());
    }

    #[tokio::test]
    async fn what_waits_for_a_worker_is_bounded() {
        let workers = workers(2);
        for _ in 0..2 * MOST_WAITING {
            let mut buffer = [0x40, 1];
            let mut meta = RecvMeta {
                len: 2,
                stride: 2,
                ..RecvMeta::default()
            };
            workers[0].hand_on(&mut buffer, &mut meta);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(workers[1].strays.lock().len(), MOST_WAITING);
    }

    #[test]
    fn the_id_is_read_where_the_kind_of_header_has_it() {
        let long = [0xc0, 0, 0, 0, 1, 8, 6, 9];
        assert_eq!(worker_octet(&long), Some(6));
        assert_eq!(worker_octet(&long[..6]), None);
        assert_eq!(worker_octet(&[0x40, 7]), Some(7));
        assert_eq!(worker_octet(&[]), None);
    }
}
