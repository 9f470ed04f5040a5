//! Datagrams that reach another worker than that of their connection are handed on to it.
//!
//! The filter in the kernel ([`super::socket`]) chooses the right socket for almost all of them. Not
//! where the system does not allow the filter, and not for all segments of a batch that the kernel
//! has put together from several connections of one address (GRO): it reads the first one alone.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::metrics::QuicMetrics;

/// The most datagrams that wait for a worker; further ones are lost, as in the kernel's own queue.
const MOST_WAITING: usize = 1_024;

/// A datagram on its way to its worker.
struct StrayDatagram {
    octets: Box<[u8]>,
    meta: RecvMeta,
}

/// What one worker gets from the others, and the ways to them.
pub(in crate::server) struct WorkerInbox {
    worker: usize,
    strays: Receiver<StrayDatagram>,
    workers: Arc<[Sender<StrayDatagram>]>,
}

impl WorkerInbox {
    /// The inboxes of all workers of a port.
    pub(super) fn for_all(workers: usize) -> impl Iterator<Item = Self> {
        let made = (0..workers).map(|_| mpsc::channel(MOST_WAITING));
        let (senders, receivers): (Vec<_>, Vec<_>) = made.unzip();
        let senders: Arc<[_]> = senders.into();
        let all = receivers.into_iter().enumerate();
        all.map(move |(worker, strays)| Self {
            worker,
            strays,
            workers: Arc::clone(&senders),
        })
    }
}

/// The socket of one worker.
pub(super) struct SteeredSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    worker: usize,
    strays: Mutex<Receiver<StrayDatagram>>,
    workers: Arc<[Sender<StrayDatagram>]>,
    metrics: Arc<QuicMetrics>,
}

impl SteeredSocket {
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        inbox: WorkerInbox,
        metrics: &Arc<QuicMetrics>,
    ) -> Self {
        Self {
            socket,
            worker: inbox.worker,
            strays: Mutex::new(inbox.strays),
            workers: inbox.workers,
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether a datagram is for another worker.
    fn is_stray(&self, datagram: &[u8]) -> bool {
        worker_of(datagram, self.workers.len()).is_some_and(|worker| worker != self.worker)
    }

    /// Hands on what is for other workers, and takes it out of the buffer.
    fn hand_on(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let all = &buffer[..meta.len];
        if !all.chunks(stride).any(|datagram| self.is_stray(datagram)) {
            return;
        }
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            match worker_of(&buffer[at..end], self.workers.len()) {
                Some(worker) if worker != self.worker => {
                    self.metrics.wrong_worker();
                    let stray = StrayDatagram {
                        octets: buffer[at..end].into(),
                        meta: RecvMeta {
                            len: end - at,
                            stride: end - at,
                            ..*meta
                        },
                    };
                    // It is lost if there are too many, or the worker has ended.
                    let _ = self.workers[worker].try_send(stray);
                }
                _ => {
                    buffer.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }
}

/// The worker that a datagram is for, by the rule of the filter in the kernel. None if it is too
/// short to tell, where any worker may drop it.
fn worker_of(datagram: &[u8], workers: usize) -> Option<usize> {
    let is_long = datagram.first()? & 0x80 != 0;
    let octet = datagram.get(if is_long { 6 } else { 1 })?;
    Some(usize::from(*octet) % workers.max(1))
}

impl AsyncUdpSocket for SteeredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Some(stray)), Some(buffer), Some(meta)) = (
            self.strays.lock().poll_recv(cx),
            buffers.first_mut(),
            meta.first_mut(),
        ) {
            // A datagram that does not fit is none of ours.
            let length = stray.octets.len().min(buffer.len());
            buffer[..length].copy_from_slice(&stray.octets[..length]);
            *meta = stray.meta;
            meta.len = length;
            return Poll::Ready(Ok(1));
        }
        let count = ready!(self.socket.poll_recv(cx, buffers, meta))?;
        if self.workers.len() > 1 {
            for (buffer, meta) in buffers.iter_mut().zip(&mut *meta).take(count) {
                self.hand_on(buffer, meta);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
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

    /// The sockets of so many workers, none of which is ever read.
    fn workers(count: usize) -> Vec<SteeredSocket> {
        let metrics = Arc::default();
        let sockets = WorkerInbox::for_all(count).map(|inbox| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
            SteeredSocket::new(socket, inbox, &metrics)
        });
        sockets.collect()
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
        assert_eq!(worker_of(&long, 4), Some(2));
        assert_eq!(worker_of(&long[..6], 4), None);
        assert_eq!(worker_of(&[0x40, 7], 4), Some(3));
        assert_eq!(worker_of(&[], 4), None);
    }
}
