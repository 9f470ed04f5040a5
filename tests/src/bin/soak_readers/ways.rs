//! The ways to the gateway, and a body that comes by one of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::h2raw::{self, Frame, H2, flag, kind, setting, window};
use e2e::h3::raw::{self, RawH3, RawStream};
use e2e::h3::{NAME, Reach, SecuredGateway};
use e2e::raw::narrow;
use e2e::tls::TlsClient;
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::bodies::{BodyKind, SoakBodies};

const INITIAL_WINDOW_SIZE: u16 = 4;
/// The windows of a client that keeps little.
const SMALL: u32 = 8 << 10;
const WIDE: u32 = 16 << 20;
/// The window that a stream of HTTP/2 begins with. Its clients usually open it again when half of
/// it is read.
const USUAL: u32 = 65_535;

/// How a client reaches the gateway, and how much it keeps unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientWay {
    Http1,
    TlsHttp1,
    /// With windows of 8 KiB.
    TlsHttp2,
    /// With the window that is usual, opened by halves.
    TlsHttp2Halves,
    /// With windows that take all, and the kernel's small buffer, behind which PING comes late.
    TlsHttp2Wide,
    /// With windows of 8 KiB.
    Http3,
    /// With windows of 256 KiB, which its library opens by eighths.
    Http3Wide,
}

/// All ways to a gateway. Clones lead to the same one.
#[derive(Clone)]
pub struct GatewayWays {
    clear: SocketAddr,
    secured: Arc<SecuredGateway>,
}

/// The body of an answer.
pub struct ArrivingBody {
    bytes: BodySource,
    /// Where this client's side of its connection is.
    pub local: SocketAddr,
    /// Bytes of the body that have come and are not read.
    unread: Vec<u8>,
    /// Why nothing more comes.
    ended: Option<String>,
}

enum BodySource {
    Plain(Box<dyn ByteStream>),
    Http2(Http2Source),
    Http3(Box<Http3Source>),
}

/// A stream of HTTP/2, alone on its connection. Where the window is small, its frames are read when
/// they come, as usual clients do.
struct Http2Source {
    h2: H2<Box<dyn ByteStream>>,
    /// The window is opened by so much at a time.
    step: u32,
    /// What was read and is not given back to the window.
    taken: u32,
}

/// A stream of HTTP/3, alone on its connection.
struct Http3Source {
    _client: RawH3,
    stream: RawStream,
    /// What is still to come of the present DATA frame.
    left: usize,
}

/// A connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

impl ClientWay {
    pub const ALL: [Self; 7] = [
        Self::Http1,
        Self::TlsHttp1,
        Self::TlsHttp2,
        Self::TlsHttp2Halves,
        Self::TlsHttp2Wide,
        Self::Http3,
        Self::Http3Wide,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::TlsHttp1 => "HTTP/1 over TLS",
            Self::TlsHttp2 => "HTTP/2 over TLS, windows of 8 KiB",
            Self::TlsHttp2Halves => "HTTP/2 over TLS, windows of 64 KiB by halves",
            Self::TlsHttp2Wide => "HTTP/2 over TLS, windows of 16 MiB",
            Self::Http3 => "HTTP/3, windows of 8 KiB",
            Self::Http3Wide => "HTTP/3, windows of 256 KiB by eighths",
        }
    }

    pub fn number(self) -> usize {
        self as usize
    }
}

impl GatewayWays {
    /// To a gateway whose second listener is the one in clear text.
    pub fn to(secured: SecuredGateway) -> Self {
        Self {
            clear: secured.gateway.addresses()[1],
            secured: Arc::new(secured),
        }
    }

    pub fn gateway(&self) -> &Gateway {
        &self.secured.gateway
    }

    /// Reads a body once, as fast as it comes, so that it is in the cache.
    pub async fn load(&self, path: &str, bodies: &SoakBodies) {
        let mut arriving = self.ask(ClientWay::TlsHttp1, path).await.unwrap();
        let body = bodies.of(BodyKind::Hit);
        assert!(arriving.read(body.len()).await.unwrap() == *body);
    }

    /// Where the gateway's side of a connection is.
    pub fn remote(&self, way: ClientWay) -> SocketAddr {
        match way {
            ClientWay::Http1 => self.clear,
            _ => self.secured.address(),
        }
    }

    /// Asks for a path over a connection of its own; the error if there is no 200.
    pub async fn ask(&self, way: ClientWay, path: &str) -> Result<ArrivingBody, String> {
        match way {
            ClientWay::Http1 => {
                let stream = narrow(self.clear).await;
                let local = stream.local_addr().unwrap();
                http1(Box::new(stream), local, path).await
            }
            ClientWay::TlsHttp1 => {
                let stream = narrow(self.secured.address()).await;
                let (stream, local) = self.tls(stream, "http/1.1").await?;
                http1(stream, local, path).await
            }
            ClientWay::TlsHttp2 => {
                let stream = narrow(self.secured.address()).await;
                self.http2(stream, path, SMALL, 1 << 10).await
            }
            ClientWay::TlsHttp2Halves => {
                // The kernel takes all that the window allows, as a client does that reads ahead.
                let stream = TcpStream::connect(self.secured.address()).await.unwrap();
                self.http2(stream, path, USUAL, USUAL / 2).await
            }
            ClientWay::TlsHttp2Wide => {
                let stream = narrow(self.secured.address()).await;
                self.http2(stream, path, WIDE, WIDE).await
            }
            ClientWay::Http3 => self.http3(path, SMALL).await,
            ClientWay::Http3Wide => self.http3(path, 256 << 10).await,
        }
    }

    async fn tls(
        &self,
        stream: TcpStream,
        protocol: &str,
    ) -> Result<(Box<dyn ByteStream>, SocketAddr), String> {
        let local = stream.local_addr().unwrap();
        let client = TlsClient::new(self.secured.address(), NAME).speaking(&[protocol]);
        let connection = client.over(stream).await;
        let connection = connection.map_err(|error| format!("no handshake: {error:?}"))?;
        Ok((Box::new(connection.stream), local))
    }

    async fn http2(
        &self,
        stream: TcpStream,
        path: &str,
        size: u32,
        step: u32,
    ) -> Result<ArrivingBody, String> {
        let (stream, local) = self.tls(stream, "h2").await?;
        let mut h2 = H2::on(stream);
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", NAME),
            (":path", path),
        ];
        let open = [
            h2raw::PREFACE.to_vec(),
            [setting(1, 0), setting(INITIAL_WINDOW_SIZE, size)].concat(),
            window(0, size.saturating_sub(USUAL).max(1)),
            h2raw::headers(1, flag::END_STREAM, &fields),
        ];
        h2.write(open.concat()).await;
        let mut source = Http2Source { h2, step, taken: 0 };
        let head = loop {
            let frame = source.frame().await?;
            if frame.kind == kind::HEADERS {
                break frame;
            }
        };
        if head.status() != Some(200) {
            return Err(format!("the status is {:?}", head.status()));
        }
        Ok(ArrivingBody {
            bytes: BodySource::Http2(source),
            local,
            unread: Vec::new(),
            ended: None,
        })
    }

    async fn http3(&self, path: &str, size: u32) -> Result<ArrivingBody, String> {
        let reach = Reach::with(|transport| {
            transport
                .stream_receive_window(VarInt::from_u32(size))
                .receive_window(VarInt::from_u32(size.max(64 << 10)))
                .keep_alive_interval(Some(Duration::from_secs(5)));
        });
        let client = self.secured.raw_by(&reach).await;
        let request = raw::headers(&client.get(path));
        let mut stream = client.stream(request).await;
        // The end of a request.
        stream.send.finish().map_err(|error| error.to_string())?;
        let local = client.endpoint.local_addr().unwrap();
        let mut source = Http3Source {
            _client: client,
            stream,
            left: 0,
        };
        let (kind, length) = source.frame().await?;
        source.bytes(length).await?;
        if kind != raw::kind::HEADERS {
            return Err(format!("a frame of the kind {kind} instead of the head"));
        }
        Ok(ArrivingBody {
            bytes: BodySource::Http3(Box::new(source)),
            local,
            unread: Vec::new(),
            ended: None,
        })
    }
}

/// Asks over a connection that is there, and reads the head of the answer.
async fn http1(
    mut stream: Box<dyn ByteStream>,
    local: SocketAddr,
    path: &str,
) -> Result<ArrivingBody, String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .and(stream.flush().await)
        .map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await;
        head.push(byte.map_err(|error| format!("no head: {error}"))?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.starts_with("HTTP/1.1 200") || !head.to_ascii_lowercase().contains("content-length") {
        return Err(head);
    }
    Ok(ArrivingBody {
        bytes: BodySource::Plain(stream),
        local,
        unread: Vec::new(),
        ended: None,
    })
}

impl Http2Source {
    async fn frame(&mut self) -> Result<Frame, String> {
        let frame = self.h2.arrived().await.ok_or("the connection ended")?;
        match frame.kind {
            kind::RST_STREAM => Err(format!("RST_STREAM with {}", frame.code())),
            kind::GOAWAY => Err(format!("GOAWAY with {}", frame.code())),
            kind::PING if frame.flags & flag::ACK == 0 => {
                let pong = h2raw::frame(kind::PING, flag::ACK, 0, &frame.payload);
                self.h2.write(pong).await;
                Ok(frame)
            }
            _ => Ok(frame),
        }
    }

    /// Gives what was read back to the windows.
    async fn took(&mut self, bytes: usize) {
        self.taken += u32::try_from(bytes).unwrap();
        if self.taken >= self.step {
            let by = std::mem::take(&mut self.taken);
            self.h2.write([window(0, by), window(1, by)].concat()).await;
        }
    }
}

impl ArrivingBody {
    /// Reads exactly so many bytes of the body; the error if it breaks off.
    pub async fn read(&mut self, count: usize) -> Result<Vec<u8>, String> {
        if let BodySource::Plain(stream) = &mut self.bytes {
            let mut bytes = vec![0; count];
            let read = stream.read_exact(&mut bytes).await;
            return read.map(|_| bytes).map_err(|error| error.to_string());
        }
        if let BodySource::Http3(source) = &mut self.bytes {
            return source.body(count).await;
        }
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            if self.unread.is_empty() {
                self.unread = match self.ended.take() {
                    Some(why) => return Err(why),
                    None => self.arrived().await?,
                };
            }
            let some = self.unread.len().min(count - bytes.len());
            bytes.extend(self.unread.drain(..some));
            if let BodySource::Http2(source) = &mut self.bytes {
                source.took(some).await;
            }
        }
        Ok(bytes)
    }

    fn reads_ahead(&self) -> bool {
        matches!(&self.bytes, BodySource::Http2(source) if source.step < WIDE)
    }

    /// Waits until then. What comes over HTTP/2 meanwhile is kept, as far as the windows allow.
    pub async fn rest_until(&mut self, then: Instant) {
        while self.reads_ahead() && self.ended.is_none() {
            match timeout_at(then, self.arrived()).await {
                Ok(Ok(piece)) => self.unread.extend(piece),
                Ok(Err(why)) => self.ended = Some(why),
                Err(_) => return,
            }
        }
        sleep_until(then).await;
    }

    /// Reads on from the connection, but nothing of the body, until it is cut.
    pub async fn is_cut(&mut self) {
        match &mut self.bytes {
            BodySource::Plain(_) => std::future::pending().await,
            BodySource::Http2(source) => while source.frame().await.is_ok() {},
            BodySource::Http3(source) => {
                let _ = source.stream.receive.received_reset().await;
            }
        }
    }

    /// Whether it is enough to wait for [`ArrivingBody::is_cut`]: who reads nothing of its connection
    /// does not hear of its end.
    pub fn hears_of_its_end(&self) -> bool {
        self.reads_ahead() || matches!(self.bytes, BodySource::Http3(_))
    }

    /// More of the body, of HTTP/2.
    async fn arrived(&mut self) -> Result<Vec<u8>, String> {
        let BodySource::Http2(source) = &mut self.bytes else {
            return Err("it has no frames of HTTP/2".to_owned());
        };
        loop {
            let frame = source.frame().await?;
            if frame.kind == kind::DATA {
                return Ok(frame.payload);
            }
        }
    }
}

impl Http3Source {
    /// So many bytes of the body, and no more from the connection than they need.
    async fn body(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::with_capacity(count);
        while body.len() < count {
            if self.left == 0 {
                let (kind, length) = self.frame().await?;
                if kind != raw::kind::DATA {
                    return Err(format!("a frame of the kind {kind}"));
                }
                self.left = length;
            }
            let some = self.left.min(count - body.len());
            body.extend(self.bytes(some).await?);
            self.left -= some;
        }
        Ok(body)
    }

    /// The kind and the length of the next frame.
    async fn frame(&mut self) -> Result<(u64, usize), String> {
        let kind = self.number().await?;
        let length = self.number().await?;
        Ok((kind, usize::try_from(length).unwrap()))
    }

    async fn number(&mut self) -> Result<u64, String> {
        let mut bytes = self.bytes(1).await?;
        let more = (1 << (bytes[0] >> 6)) - 1;
        bytes.extend(self.bytes(more).await?);
        bytes[0] &= 0x3f;
        let number = bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(number)
    }

    async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; count];
        let read = self.stream.receive.read_exact(&mut bytes).await;
        read.map(|()| bytes).map_err(|error| error.to_string())
    }
}
