//! What an origin answers: a page as it stands, or one that the test streams in
//! pieces on command, cuts in the middle, or never gives.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

/// The connection of an upgraded exchange.
pub type Tunnel = TokioIo<Upgraded>;
/// What runs on it.
pub type OnTunnel = Box<dyn FnOnce(Tunnel) -> BoxFuture<'static, ()> + Send>;

/// One answer of an origin.
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Body(BoxBody<Bytes, Cut>),
    Upgrade(OnTunnel),
    HangUp,
}

/// The origin broke off its body.
#[derive(Debug)]
pub struct Cut;

/// The test's hand on a streamed body.
///
/// Dropped without [`Pieces::finish`] it cuts the body off.
pub struct Pieces(mpsc::Sender<Piece>);

enum Piece {
    Frame(Frame<Bytes>),
    End,
}

impl Reply {
    /// 200 with a body and no headers but what is added.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        let body = Full::new(body.into())
            .map_err(|never| match never {})
            .boxed();
        Self::with(Content::Body(body))
    }

    /// 200, cacheable for a minute.
    pub fn fresh(body: impl Into<Bytes>) -> Self {
        Self::ok(body).header("cache-control", "max-age=60")
    }

    /// An empty answer with this status.
    pub fn status_only(status: u16) -> Self {
        Self::ok("").status(status)
    }

    /// A body that is sent piece by piece, as the test says.
    pub fn stream() -> (Self, Pieces) {
        // One piece at a time: a sender that gets ahead of the reader has to wait,
        // which is what makes back-pressure visible.
        let (send, receive) = mpsc::channel(1);
        let body = StreamedBody {
            receive,
            ended: false,
        }
        .boxed();
        (Self::with(Content::Body(body)), Pieces(send))
    }

    /// 101, then `on_tunnel` with the connection.
    pub fn upgrade<F>(protocol: &str, on_tunnel: impl FnOnce(Tunnel) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let run: OnTunnel = Box::new(move |tunnel| Box::pin(on_tunnel(tunnel)));
        Self::with(Content::Upgrade(run))
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", protocol)
    }

    /// The connection closes without an answer.
    pub fn hang_up() -> Self {
        Self::with(Content::HangUp)
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap();
        self
    }

    /// Adds a field line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers
            .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Takes a field out again.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn with(content: Content) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content,
        }
    }
}

impl Pieces {
    /// Sends a piece; waits while the reader has not taken the one before.
    /// False when nobody reads any more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.0
            .send(Piece::Frame(Frame::data(piece.into())))
            .await
            .is_ok()
    }

    pub async fn trailer(&self, name: &'static str, value: &'static str) -> bool {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        self.0
            .send(Piece::Frame(Frame::trailers(trailers)))
            .await
            .is_ok()
    }

    /// The proper end of the body.
    pub async fn finish(self) {
        let _ = self.0.send(Piece::End).await;
    }

    /// Breaks the body off.
    pub fn cut(self) {}

    /// Waits until nobody reads any more.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }

    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

struct StreamedBody {
    receive: mpsc::Receiver<Piece>,
    ended: bool,
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.ended {
            return std::task::Poll::Ready(None);
        }
        self.receive.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Frame(frame)) => Some(Ok(frame)),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(Cut))
            }
        })
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the origin was told to cut its body")
    }
}

impl std::error::Error for Cut {}
