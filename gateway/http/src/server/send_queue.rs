//! How many of the bytes that were written to a client the kernel still holds, because the
//! client's side has not acknowledged them.
//!
//! A successful write says only that the kernel had room. Its buffer grows to some megabytes, and
//! a blocked writer is woken when a third of that is free: a client that reads steadily, but
//! slowly, lets no write through for a long time. So the code that enforces deadlines asks the
//! kernel itself, whenever it is about to judge a client.
//!
//! Neighbours: `wire` owns the socket and says when it opens and closes, `activity` counts
//! what was written, `watch` and `stream_task` judge by the difference. `socket` bounds what
//! the kernel takes ahead of the client.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ`: what the send queue of a socket holds (`tcp(7)`, `unix(7)`).
const SIOCOUTQ: Opcode = 0x5411;

/// No socket is open.
const CLOSED: RawFd = -1;

/// The send queue of a connection's socket.
pub(super) struct SendQueue {
    socket: AtomicI32,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self {
            socket: AtomicI32::new(CLOSED),
        }
    }
}

impl SendQueue {
    /// Sets the socket, which is open until [`SendQueue::closes`].
    pub(super) fn opens(&self, socket: &impl AsRawFd) {
        self.socket.store(socket.as_raw_fd(), Relaxed);
    }

    /// Must be called before the socket is closed.
    pub(super) fn closes(&self) {
        self.socket.store(CLOSED, Relaxed);
    }

    /// Bytes that the client has not acknowledged; 0 on a socket that is closed.
    pub(super) fn held(&self) -> u64 {
        match self.socket.load(Relaxed) {
            CLOSED => 0,
            open => queued(open),
        }
    }
}

#[allow(unsafe_code)]
fn queued(socket: RawFd) -> u64 {
    // SAFETY: the number is that of an open socket: its owner, `ClientTransport`, removes it here
    // in its Drop, before the socket is closed, and everything of a connection runs on one thread.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    // SAFETY: SIOCOUTQ writes one `int` and does nothing else.
    let held = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) };
    held.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::SendQueue;

    /// Writes, then reads; returns what the kernel held before and after the read.
    fn held(mut writer: impl Write + std::os::fd::AsRawFd, mut reader: impl Read) -> (u64, u64) {
        let queue = SendQueue::default();
        assert_eq!(queue.held(), 0, "nothing is open");
        queue.opens(&writer);
        let wrote = writer.write(&vec![b'x'; 8 << 20]).unwrap();
        let before = queue.held();
        let mut all = vec![0; wrote];
        reader.read_exact(&mut all).unwrap();
        let after = queue.held();
        queue.closes();
        assert_eq!(queue.held(), 0, "it is closed");
        (before, after)
    }

    #[test]
    fn what_nobody_has_read_is_held() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (writer, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        let (before, after) = held(writer, reader);
        assert!(before > 64 << 10 && after < before, "{before} {after}");
        let (writer, reader) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let (before, after) = held(writer, reader);
        assert!(before > 64 << 10 && after == 0, "{before} {after}");
    }
}
