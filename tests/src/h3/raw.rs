//! A client that writes any bytes on any stream of HTTP/3, and tells how the gateway ended it.
//!
//! It writes field sections with literals alone. What it reads it takes apart with the gateway's
//! own reader of QPACK: that an independent one reads the same is what [`super::client`] shows.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lamina_http::http3::qpack::{self, SectionLimits};
use quinn::{ReadError, ReadToEndError, RecvStream, SendStream, VarInt};

use crate::wait::{SOON, wait_for, within};

/// Types of frames (RFC 9114 §7.2), and some of HTTP/2 that must not be sent.
pub mod kind {
    pub const DATA: u64 = 0x0;
    pub const HEADERS: u64 = 0x1;
    pub const PRIORITY_OF_HTTP2: u64 = 0x2;
    pub const CANCEL_PUSH: u64 = 0x3;
    pub const SETTINGS: u64 = 0x4;
    pub const PUSH_PROMISE: u64 = 0x5;
    pub const PING_OF_HTTP2: u64 = 0x6;
    pub const GOAWAY: u64 = 0x7;
    pub const WINDOW_UPDATE_OF_HTTP2: u64 = 0x8;
    pub const CONTINUATION_OF_HTTP2: u64 = 0x9;
    pub const MAX_PUSH_ID: u64 = 0xd;
    /// One that says nothing (RFC 9114 §7.2.8).
    pub const GREASE: u64 = 0x1f * 7 + 0x21;
    /// RFC 9218 §7.2.
    pub const PRIORITY_UPDATE: u64 = 0xf0700;
    pub const PRIORITY_UPDATE_OF_PUSH: u64 = 0xf0701;
}

/// Types of unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2).
pub mod one_way {
    pub const CONTROL: u64 = 0x0;
    pub const PUSH: u64 = 0x1;
    pub const ENCODER: u64 = 0x2;
    pub const DECODER: u64 = 0x3;
    pub const GREASE: u64 = 0x1f * 3 + 0x21;
}

/// Codes of errors (RFC 9114 §8.1, RFC 9204 §6).
pub mod code {
    pub const NO_ERROR: u64 = 0x100;
    pub const STREAM_CREATION: u64 = 0x103;
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    pub const FRAME: u64 = 0x106;
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    pub const ID: u64 = 0x108;
    pub const SETTINGS: u64 = 0x109;
    pub const MISSING_SETTINGS: u64 = 0x10a;
    pub const REQUEST_REJECTED: u64 = 0x10b;
    pub const REQUEST_CANCELLED: u64 = 0x10c;
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    pub const MESSAGE: u64 = 0x10e;
    pub const DECOMPRESSION_FAILED: u64 = 0x200;
    pub const ENCODER_STREAM: u64 = 0x201;
    pub const DECODER_STREAM: u64 = 0x202;
}

/// One connection.
pub struct RawH3 {
    pub endpoint: quinn::Endpoint,
    pub connection: quinn::Connection,
    name: String,
    /// Streams that must stay open as long as the connection.
    kept: Vec<SendStream>,
    seen: Arc<Mutex<ControlSeen>>,
}

/// What the gateway has said on its control stream.
#[derive(Clone, Default, Debug)]
pub struct ControlSeen {
    pub settings: Option<Vec<(u64, u64)>>,
    /// The ids of its GOAWAY frames.
    pub goaways: Vec<u64>,
}

/// One request's stream.
pub struct RawStream {
    pub send: SendStream,
    pub receive: RecvStream,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RawEnd {
    Answered(RawAnswer),
    /// The stream was reset with this code.
    Reset(u64),
    /// The gateway closed the connection with this code.
    Closed(u64),
    /// Neither: the connection timed out, or broke the protocol of QUIC.
    Lost(String),
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RawAnswer {
    /// The heads that came before the final one, with their status.
    pub interim: Vec<Vec<(String, String)>>,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl RawEnd {
    /// The status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(answer) => Some(answer.status),
            _ => None,
        }
    }
}

impl RawH3 {
    pub(crate) fn over(
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
        name: &str,
    ) -> Self {
        let seen = Arc::default();
        tokio::spawn(listen(connection.clone(), Arc::clone(&seen)));
        Self {
            endpoint,
            connection,
            name: name.to_owned(),
            kept: Vec::new(),
            seen,
        }
    }

    /// Opens a control stream with empty settings.
    pub async fn open_control(&mut self) {
        let settings = frame(kind::SETTINGS, []);
        self.open_one_way(one_way::CONTROL, settings).await;
    }

    /// Opens a unidirectional stream and keeps it open.
    pub async fn open_one_way(&mut self, kind: u64, more: impl AsRef<[u8]>) {
        let stream = self.one_way(kind, more).await;
        self.kept.push(stream);
    }

    /// Opens a unidirectional stream with this type and these bytes. A connection that has ended
    /// meanwhile is none of its business: that shows elsewhere.
    pub async fn one_way(&self, kind: u64, more: impl AsRef<[u8]>) -> SendStream {
        let opened = within("a one-way stream opens", SOON, self.connection.open_uni()).await;
        let mut stream = opened.expect("the connection is open");
        let mut bytes = number(kind);
        bytes.extend_from_slice(more.as_ref());
        let _ = stream.write_all(&bytes).await;
        stream
    }

    /// The first stream that was kept: the control stream of [`open_control`](Self::open_control).
    pub fn control(&mut self) -> &mut SendStream {
        self.kept.first_mut().expect("a control stream was opened")
    }

    /// Opens a request's stream and writes these bytes. None when the connection has ended.
    pub async fn try_stream(&self, bytes: impl AsRef<[u8]>) -> Option<RawStream> {
        let (mut send, receive) = self.connection.open_bi().await.ok()?;
        // An error shows when the answer is read.
        let _ = send.write_all(bytes.as_ref()).await;
        Some(RawStream { send, receive })
    }

    /// The same for a connection that is open.
    pub async fn stream(&self, bytes: impl AsRef<[u8]>) -> RawStream {
        let opened = within("a stream opens", SOON, self.try_stream(bytes)).await;
        opened.expect("the connection is open")
    }

    /// Writes these bytes as a whole request and reads what becomes of it.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> RawEnd {
        let opened = within("a stream opens", SOON, self.try_stream(bytes)).await;
        match opened {
            Some(mut stream) => {
                let _ = stream.send.finish();
                stream.end().await
            }
            None => of_connection(&self.connection.closed().await),
        }
    }

    /// The pseudo-header fields of a GET.
    pub fn get(&self, path: &str) -> Vec<(String, String)> {
        self.head("GET", path)
    }

    pub fn head(&self, method: &str, path: &str) -> Vec<(String, String)> {
        let fields = [
            (":method", method),
            (":scheme", "https"),
            (":authority", &self.name),
            (":path", path),
        ];
        fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    /// Whether a GET of this path is still answered.
    pub async fn answers(&self, path: &str) -> bool {
        let end = self.ask(headers(&self.get(path))).await;
        end.status() == Some(200)
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> RawEnd {
        let closed = within("the connection ends", SOON * 2, self.connection.closed()).await;
        of_connection(&closed)
    }

    /// What the gateway has said so far.
    pub fn seen(&self) -> ControlSeen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the gateway has sent so many GOAWAY frames; their ids.
    pub async fn goaways(&self, count: usize) -> Vec<u64> {
        let what = format!("{count} GOAWAY frames came");
        wait_for(&what, SOON, || async {
            let seen = self.seen().goaways;
            (seen.len() >= count).then_some(seen)
        })
        .await
    }
}

impl RawStream {
    /// Writes more; false when that is not possible any more.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let written = self.send.write_all(bytes.as_ref());
        within("a write to a stream", SOON, written).await.is_ok()
    }

    /// Resets the request's direction.
    pub fn reset(&mut self, code: u64) {
        let _ = self.send.reset(VarInt::from_u64(code).unwrap());
    }

    /// Wants no answer any more.
    pub fn stop(&mut self, code: u64) {
        let _ = self.receive.stop(VarInt::from_u64(code).unwrap());
    }

    /// The code with which the gateway asks to send no more, or None if it took everything.
    pub async fn stopped(&self) -> Option<u64> {
        let stopped = within(
            "the gateway takes or stops a stream",
            SOON,
            self.send.stopped(),
        );
        match stopped.await {
            Ok(code) => code.map(VarInt::into_inner),
            Err(error) => panic!("neither taken nor stopped: {error}"),
        }
    }

    /// Reads the answer to its end.
    pub async fn end(mut self) -> RawEnd {
        self.read_end().await
    }

    /// The same, and the stream can be looked at further.
    pub async fn read_end(&mut self) -> RawEnd {
        let read = self.receive.read_to_end(256 << 20);
        match within("an answer ends", SOON * 4, read).await {
            Ok(bytes) => match answer(&bytes) {
                Some(answer) => RawEnd::Answered(answer),
                None => RawEnd::Lost(format!("{} octets that are no answer", bytes.len())),
            },
            Err(ReadToEndError::Read(ReadError::Reset(code))) => RawEnd::Reset(code.into_inner()),
            Err(ReadToEndError::Read(ReadError::ConnectionLost(error))) => of_connection(&error),
            Err(other) => RawEnd::Lost(other.to_string()),
        }
    }
}

/// A frame that is as long as it says.
pub fn frame(kind: u64, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = frame_head(kind, body.len() as u64);
    bytes.extend_from_slice(body);
    bytes
}

/// A type and a length, whatever follows.
pub fn frame_head(kind: u64, length: u64) -> Vec<u8> {
    [number(kind), number(length)].concat()
}

/// A HEADERS frame with these fields.
pub fn headers<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> Vec<u8> {
    frame(kind::HEADERS, section(fields))
}

/// A field section with literals alone (RFC 9204 §4.5.6).
pub fn section<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    for (name, value) in fields {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        prefixed(&mut bytes, 0b0010_0000, 3, name.len());
        bytes.extend_from_slice(name);
        prefixed(&mut bytes, 0, 7, value.len());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// A SETTINGS frame.
pub fn settings(settings: &[(u64, u64)]) -> Vec<u8> {
    let pairs = settings
        .iter()
        .map(|(id, value)| [number(*id), number(*value)].concat());
    frame(kind::SETTINGS, pairs.collect::<Vec<_>>().concat())
}

/// An integer of QUIC (RFC 9000 §16).
pub fn number(number: u64) -> Vec<u8> {
    match number {
        0..0x40 => vec![number as u8],
        0x40..0x4000 => (number as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (number as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (number | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

/// An integer of QPACK behind these first bits (RFC 7541 §5.1).
fn prefixed(into: &mut Vec<u8>, first: u8, bits: u32, number: usize) {
    let most = (1 << bits) - 1;
    if number < most {
        return into.push(first | number as u8);
    }
    into.push(first | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn of_connection(closed: &quinn::ConnectionError) -> RawEnd {
    match closed {
        quinn::ConnectionError::ApplicationClosed(close) => {
            RawEnd::Closed(close.error_code.into_inner())
        }
        other => RawEnd::Lost(other.to_string()),
    }
}

/// The frames of an answer. An interim head behind the final one counts as another final one.
fn answer(mut bytes: &[u8]) -> Option<RawAnswer> {
    let mut answer = RawAnswer::default();
    while !bytes.is_empty() {
        let kind = take_number(&mut bytes)?;
        let length = usize::try_from(take_number(&mut bytes)?).ok()?;
        let (body, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        match kind {
            kind::DATA => answer.body.extend_from_slice(body),
            kind::HEADERS => {
                let fields = fields(body)?;
                let status = fields.iter().find(|(name, _)| name == ":status");
                match status.and_then(|(_, status)| status.parse().ok()) {
                    Some(100..200) if answer.status == 0 => answer.interim.push(fields),
                    Some(status) => (answer.status, answer.fields) = (status, fields),
                    None => answer.trailers = fields,
                }
            }
            _ => {}
        }
    }
    (answer.status != 0).then_some(answer)
}

fn fields(section: &[u8]) -> Option<Vec<(String, String)>> {
    let limits = SectionLimits {
        octets: 1 << 20,
        fields: 10_000,
    };
    let fields = qpack::decode(section, limits).ok()?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(
        fields
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
    )
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, taken) = lamina_http::http3::varint::read(bytes)?;
    *bytes = &bytes[taken..];
    Some(number)
}

/// Reads what the gateway says on its one-way streams until the connection ends.
async fn listen(connection: quinn::Connection, seen: Arc<Mutex<ControlSeen>>) {
    while let Ok(stream) = connection.accept_uni().await {
        tokio::spawn(read_control(stream, Arc::clone(&seen)));
    }
}

async fn read_control(mut stream: RecvStream, seen: Arc<Mutex<ControlSeen>>) -> Option<()> {
    let kind = read_number(&mut stream).await?;
    if kind != one_way::CONTROL {
        return Some(());
    }
    loop {
        let kind = read_number(&mut stream).await?;
        let length = read_number(&mut stream).await?;
        let mut body = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut body).await.ok()?;
        let (mut rest, mut numbers) = (&body[..], Vec::new());
        while let Some(number) = take_number(&mut rest) {
            numbers.push(number);
        }
        let mut seen = seen.lock().unwrap();
        match kind {
            kind::SETTINGS => {
                let pairs = numbers.chunks(2).map(|pair| (pair[0], pair[1]));
                seen.settings = Some(pairs.collect());
            }
            kind::GOAWAY => seen.goaways.extend(numbers),
            _ => {}
        }
    }
}

async fn read_number(stream: &mut RecvStream) -> Option<u64> {
    let mut bytes = vec![0];
    stream.read_exact(&mut bytes).await.ok()?;
    bytes.resize(1 << (bytes[0] >> 6), 0);
    stream.read_exact(&mut bytes[1..]).await.ok()?;
    take_number(&mut &bytes[..])
}
