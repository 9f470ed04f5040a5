//! Requests of HTTP/1 on one side, the same by HTTP/2 or HTTP/3 on the other.
//!
//! It translates what differs by nature, `Host` and the framing of content, and leaves out what is
//! about the connection to itself (`Connection: close` or `keep-alive`). All else goes out as it
//! came: a field that the other protocol forbids makes the request fail, so that a case that cannot
//! apply is noticed.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tokio::net::TcpStream;

use super::http2::{Http2, Http2Exchange};
use super::http3::{Http3, Http3Exchange, Quic};
use super::tunnel::Tls;
use crate::rfc::wire::{Framing, Head, Wire};

/// Where requests go.
pub enum GatewayTarget {
    Http2(Tls),
    Http3(Quic),
}

/// A connection to the gateway.
enum GatewayConnection {
    Http2(Http2),
    Http3(Http3),
}

/// One request under way.
enum StartedExchange {
    Http2(Http2Exchange),
    Http3(Box<Http3Exchange>),
}

/// What comes from the gateway, in this order; interim heads and pieces may be many.
pub enum AnswerPart {
    Interim(Response<()>),
    Head(Response<()>),
    Piece(Bytes),
    /// The end, with trailers if there are any.
    End(Option<HeaderMap>),
}

/// Answers the requests of one connection until one of them can't be answered.
pub async fn serve(near: TcpStream, far: &GatewayTarget) {
    let mut near = Wire::new(near);
    let mut line = None;
    while let Some(head) = near.head().await {
        if pass(&mut near, head, far, &mut line).await.is_none() {
            return;
        }
    }
}

/// Passes one request on and its answer back. None when the connection can't go on.
async fn pass(
    near: &mut Wire,
    head: Head,
    far: &GatewayTarget,
    line: &mut Option<GatewayConnection>,
) -> Option<()> {
    let framing = Framing::of(&head.fields, Framing::None);
    let mut waits = head.fields.contains_key(EXPECT);
    let request = translated(head)?;
    let mut answer = AnswerWriter::to(request.method());
    let has_content = !matches!(framing, Framing::None);
    let mut exchange = StartedExchange::begin(far, line, request, has_content).await?;
    if has_content && !waits {
        exchange.send(near.body(framing).await.0).await;
    }
    loop {
        let part = exchange.next().await?;
        let goes_on = matches!(&part, AnswerPart::Interim(interim) if interim.status() == 100);
        let is_end = matches!(part, AnswerPart::End(_));
        if !near.write(&answer.bytes(part)).await {
            return None;
        }
        if goes_on && std::mem::take(&mut waits) {
            exchange.send(near.body(framing).await.0).await;
        }
        if is_end {
            // Content that nobody waited for stands where the next request would.
            return (!waits).then_some(());
        }
    }
}

/// The request by the other protocol. None when it has no words for it.
fn translated(head: Head) -> Option<Request<()>> {
    let mut words = head.start.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if words.next() != Some("HTTP/1.1") {
        return None;
    }
    let mut fields = head.fields;
    let host = fields.remove(HOST)?;
    let uri = match target.starts_with(['/', '*']) {
        true => {
            let path: PathAndQuery = target.parse().ok()?;
            let uri = Uri::builder().scheme("https").authority(host.as_bytes());
            uri.path_and_query(path).build().ok()?
        }
        false => target.parse().ok()?,
    };
    let of_this_connection = |value: &http::HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"close") || value.eq_ignore_ascii_case(b"keep-alive")
    };
    if fields.get(CONNECTION).is_some_and(of_this_connection) {
        fields.remove(CONNECTION);
    }
    fields.remove(TRANSFER_ENCODING);
    let mut request = Request::builder().method(method).uri(uri).body(()).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

impl StartedExchange {
    async fn begin(
        far: &GatewayTarget,
        line: &mut Option<GatewayConnection>,
        request: Request<()>,
        has_content: bool,
    ) -> Option<Self> {
        if line.as_ref().is_none_or(GatewayConnection::is_closed) {
            *line = Some(GatewayConnection::open(far).await?);
        }
        match line.as_mut()? {
            GatewayConnection::Http2(line) => {
                line.begin(request, has_content).await.map(Self::Http2)
            }
            GatewayConnection::Http3(line) => {
                let exchange = line.begin(request, has_content).await?;
                Some(Self::Http3(Box::new(exchange)))
            }
        }
    }

    /// Sends the whole content.
    async fn send(&mut self, content: Bytes) {
        match self {
            Self::Http2(exchange) => exchange.send(content),
            Self::Http3(exchange) => exchange.send(content).await,
        }
    }

    /// The next part; none when the gateway broke off.
    async fn next(&mut self) -> Option<AnswerPart> {
        match self {
            Self::Http2(exchange) => exchange.next().await,
            Self::Http3(exchange) => exchange.next().await,
        }
    }
}

impl GatewayConnection {
    async fn open(far: &GatewayTarget) -> Option<Self> {
        Some(match far {
            GatewayTarget::Http2(tls) => Self::Http2(Http2::over(tls.connect().await?).await?),
            GatewayTarget::Http3(quic) => Self::Http3(quic.connect().await?),
        })
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http2(line) => line.is_closed(),
            Self::Http3(line) => line.is_closed(),
        }
    }
}

/// Writes an answer in HTTP/1.
struct AnswerWriter {
    method: Method,
    is_chunked: bool,
}

impl AnswerWriter {
    fn to(method: &Method) -> Self {
        Self {
            method: method.clone(),
            is_chunked: false,
        }
    }

    fn bytes(&mut self, part: AnswerPart) -> Vec<u8> {
        match part {
            AnswerPart::Interim(interim) => head(&interim),
            AnswerPart::Head(answer) => {
                let is_empty = self.method == Method::HEAD
                    || matches!(
                        answer.status(),
                        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
                    );
                self.is_chunked = !is_empty && !answer.headers().contains_key(CONTENT_LENGTH);
                let mut bytes = head(&answer);
                if self.is_chunked {
                    let line_end = bytes.len() - 2;
                    bytes.truncate(line_end);
                    bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                }
                bytes
            }
            AnswerPart::Piece(piece) if self.is_chunked && !piece.is_empty() => {
                let size = format!("{:x}\r\n", piece.len());
                [size.as_bytes(), &piece, b"\r\n"].concat()
            }
            AnswerPart::Piece(piece) => piece.to_vec(),
            AnswerPart::End(trailers) if self.is_chunked => {
                let mut bytes = b"0\r\n".to_vec();
                lines(&mut bytes, &trailers.unwrap_or_default());
                bytes.extend_from_slice(b"\r\n");
                bytes
            }
            AnswerPart::End(_) => Vec::new(),
        }
    }
}

fn head(answer: &Response<()>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} Translated\r\n", answer.status().as_u16()).into_bytes();
    lines(&mut bytes, answer.headers());
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn lines(bytes: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}
