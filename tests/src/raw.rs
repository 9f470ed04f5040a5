//! A socket on which the test writes its own bytes: for what a proper client would never send.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::check;
use crate::wait::{SOON, within};

/// A connection with the smallest receive buffer.
pub async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // The kernel doubles it, and has a least size of its own.
    socket.set_recv_buffer_size(4 << 10).expect("a size");
    let stream = within("connecting", SOON, socket.connect(address))
        .await
        .expect("the listener accepts");
    stream.set_nodelay(true).expect("an option of TCP");
    stream
}

/// A connection, plain TCP if nothing else is said, with what was read from it but not yet asked
/// for.
pub struct RawConnection<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// A response's head as it came over the wire.
#[derive(Debug)]
pub struct RawHead {
    pub status: u16,
    pub text: String,
}

impl RawHead {
    /// What must hold for every response, whoever reads it.
    fn check(&self) {
        let lines = self.text.split("\r\n").skip(1);
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers: HeaderMap = fields
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes());
                let value = HeaderValue::from_bytes(value.trim().as_bytes());
                let legal = "a field of a response is legal";
                (name.expect(legal), value.expect(legal))
            })
            .collect();
        check::response(&check::Context {
            // What was asked is the test's secret: nothing that depends on it is judged.
            method: &Method::GET,
            target: "bytes of the test's own",
            status: StatusCode::from_u16(self.status).expect("a status is in its range"),
            headers: &headers,
            cache_status_due: false,
            tags_allowed: false,
            duplicates_allowed: false,
        });
    }
}

impl RawConnection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within("connecting", SOON, TcpStream::connect(address))
            .await
            .expect("the listener accepts");
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// The same with as small a receive buffer as the kernel gives, so that what is not read
    /// is soon not acknowledged either.
    pub async fn narrow(address: SocketAddr) -> Self {
        Self {
            stream: narrow(address).await,
            unread: Vec::new(),
        }
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        // A lingering time of zero makes the kernel send RST.
        let _ = self.stream.set_zero_linger();
    }

    /// Whether nothing at all has come so far (does not wait).
    pub fn is_silent(&mut self) -> bool {
        let mut buffer = [0; 1024];
        match self.stream.try_read(&mut buffer) {
            Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        self.unread.is_empty()
    }

    /// Whether the other side has neither said anything nor closed so far (does not wait).
    pub fn is_open(&mut self) -> bool {
        let mut peeked = [0];
        let nothing = self.stream.try_read(&mut peeked);
        self.unread.is_empty()
            && nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawConnection<S> {
    /// Over a connection that is there.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within("writing", SOON, self.send(bytes.as_ref()))
            .await
            .expect("the connection takes bytes");
    }

    /// Writes; false when the other side has closed.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within("writing", SOON, self.send(bytes)).await.is_ok()
    }

    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        // TLS may hold bytes back.
        self.stream.flush().await
    }

    /// Closes the side for writing; what comes can still be read.
    pub async fn finish(&mut self) {
        // Nothing to close on a connection that was reset.
        let _ = self.stream.shutdown().await;
    }

    /// Reads a head up to its empty line; panics when the connection ends first.
    pub async fn head(&mut self) -> RawHead {
        let text = self.until(b"\r\n\r\n").await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let head = RawHead {
            status: status.unwrap_or_else(|| panic!("no status in {text:?}")),
            text,
        };
        head.check();
        head
    }

    /// Reads up to and with `end`.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self
                .unread
                .windows(end.len())
                .position(|window| window == end)
            {
                return self.unread.drain(..at + end.len()).collect();
            }
            let more = self.fill().await;
            assert!(
                more,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// Reads exactly `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.unread.len() < n {
            assert!(
                self.fill().await,
                "the connection ended after {} of {n} bytes",
                self.unread.len()
            );
        }
        self.unread.drain(..n).collect()
    }

    /// Reads until the other side closes.
    pub async fn to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.unread)
    }

    /// Reads until the other side closes. Also tells whether it closed in order, as TLS demands
    /// (close_notify), or broke off.
    pub async fn to_close(&mut self) -> (Vec<u8>, bool) {
        loop {
            let read = within("reading", SOON, self.stream.read_buf(&mut self.unread)).await;
            match read {
                Ok(0) => return (std::mem::take(&mut self.unread), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.unread), false),
            }
        }
    }

    /// One read into the buffer; false at the end or on a reset.
    async fn fill(&mut self) -> bool {
        let read = within("reading", SOON, self.stream.read_buf(&mut self.unread)).await;
        read.is_ok_and(|n| n > 0)
    }
}

impl RawHead {
    /// A field's value; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }
}
