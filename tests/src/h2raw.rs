//! HTTP/2 frame by frame: a client for what a proper one would never send, and, taking a
//! connection from the other side, an origin of that kind.
//!
//! Decision: of our own. Frames are nine bytes and a payload, and fields without
//! compression ("literal without indexing", RFC 7541 §6.2.2) are two lengths and two
//! texts. Answers are read as far as tests ask: kinds, streams, error codes, and the
//! status, which is the first byte of our server's header blocks or a literal.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{SOON, within};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
}

/// Error codes that answers carry (RFC 9113 §7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream or its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A whole answer.
    Answered { status: u16, body: Vec<u8> },
    /// RST_STREAM with this code, after so much of an answer.
    Reset { code: u32, body: Vec<u8> },
    /// GOAWAY with this code.
    GoneAway(u32),
    /// The connection closed without a word.
    Closed,
}

/// One connection, from either side; plain TCP if nothing else is said.
pub struct H2<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression; names and values go out as they are.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_ref());
        text(&mut bytes, value.as_ref());
    }
    bytes
}

/// A text with its length as an integer of seven bits and more (RFC 7541 §5.1).
fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(length as u8);
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push((length % 128) as u8 | 128);
            length /= 128;
        }
        bytes.push(length as u8);
    }
    bytes.extend(text);
}

/// HEADERS with a whole block; `flags` beside END_HEADERS.
pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    stream: u32,
    flags: u8,
    fields: &[(N, V)],
) -> Vec<u8> {
    frame(
        kind::HEADERS,
        flags | flag::END_HEADERS,
        stream,
        block(fields),
    )
}

/// A plain GET, complete.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    ask("GET", stream, path, &[])
}

/// The same with more fields.
pub fn get_with(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    ask("GET", stream, path, more)
}

/// A request without body, complete.
pub fn ask(method: &str, stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "attacker.test"),
        (":path", path),
    ];
    headers(stream, flag::END_STREAM, &[&fields, more].concat())
}

/// A POST whose body is to follow.
pub fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "attacker.test"),
        (":path", path),
    ];
    headers(stream, 0, &[&fields, more].concat())
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

/// One setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(kind::SETTINGS, 0, 0, payload)
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4);
        bytes.map_or(u32::MAX, |bytes| {
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        })
    }

    /// `:status` of HEADERS: of the static table, or its literal digits.
    pub fn status(&self) -> Option<u16> {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match self.payload.iter().find(|byte| **byte & 0xe0 != 0x20)? {
            byte @ 0x88..=0x8e => Some(INDEXED[usize::from(byte - 0x88)]),
            _ => self.literal_status(),
        }
    }

    /// A name that is in the table at 8 to 14, then a text, perhaps in Huffman's code.
    fn literal_status(&self) -> Option<u16> {
        let at = self.payload.iter().position(|byte| byte & 0xe0 != 0x20)?;
        let (form, value) = (self.payload.get(at)?, self.payload.get(at + 1..)?);
        let named = matches!(form & 0x3f, 8..=14);
        let (length, digits) = value.split_first()?;
        let digits = digits.get(..usize::from(length & 0x7f))?;
        named.then(|| match length & 0x80 {
            0 => std::str::from_utf8(digits).ok()?.parse().ok(),
            _ => huffman_digits(digits),
        })?
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): 0 to 2 are five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
    let (mut number, mut code, mut length) = (0, 0_u8, 0);
    for bit in bits {
        (code, length) = (code << 1 | bit, length + 1);
        let digit = match (length, code) {
            (5, 0..=2) => code,
            (6, 0x19..=0x1f) => code - 0x19 + 3,
            (6, _) => return (number > 0).then_some(number),
            _ => continue,
        };
        number = number * 10 + u16::from(digit);
        (code, length) = (0, 0);
    }
    Some(number)
}

impl H2 {
    /// Connects, and sends the preface and SETTINGS: no table of fields, so that each
    /// answer says its status in its own words.
    pub async fn open(address: SocketAddr) -> Self {
        let mut h2 = Self::silent(address).await;
        h2.write([PREFACE, &setting(1, 0)].concat()).await;
        h2
    }

    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = within("connecting", SOON, TcpStream::connect(address)).await;
        Self::over(stream.expect("the listener accepts"))
    }

    /// Over a connection that is there, which has sent or read its preface.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket takes the option");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// The same, but reads at the same time, as a client does that wants to see the answers
    /// of its flood; they are kept. Ends early when the connection does.
    pub async fn flood(&mut self, bytes: &[u8]) -> bool {
        let (mut read, mut write) = self.stream.split();
        let mut piece = vec![0; 64 << 10];
        let writing = write.write_all(bytes);
        tokio::pin!(writing);
        within("writing a flood", SOON, async {
            loop {
                tokio::select! {
                    written = &mut writing => return written.is_ok(),
                    count = read.read(&mut piece) => match count {
                        Ok(count) if count > 0 => self.unread.extend_from_slice(&piece[..count]),
                        _ => return false,
                    },
                }
            }
        })
        .await
    }

    /// Closes with a reset, as a killed client on a machine that is gone.
    pub fn abort(self) {
        let _ = self.stream.set_zero_linger();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> H2<S> {
    /// Over a connection with a transport of its own, which has sent or read its preface.
    pub fn on(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes; false when the other side has closed, or takes nothing for a while: a
    /// flood may be answered by not being read any more.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            // TLS may hold bytes back.
            self.stream.flush().await
        };
        let patience = SOON / 10;
        matches!(tokio::time::timeout(patience, write).await, Ok(Ok(())))
    }

    /// The next frame, within the usual limit; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        within("reading a frame", SOON, self.arrived()).await
    }

    /// The next frame, whenever it comes.
    pub async fn arrived(&mut self) -> Option<Frame> {
        self.fill(9).await?;
        let head = &self.unread[..9];
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        self.fill(9 + length).await?;
        let payload = self.unread.drain(..9 + length).skip(9).collect();
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Forgets what was read while a flood was written.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    /// Reads on to the end of this stream, or of the connection. Opens windows as they
    /// are used and acknowledges, so that a good stream comes to its end.
    pub async fn end_of(&mut self, stream: u32) -> End {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.frame().await {
            let mine = frame.stream == stream;
            match frame.kind {
                kind::GOAWAY if frame.code() != code::NO_ERROR => {
                    return End::GoneAway(frame.code());
                }
                kind::RST_STREAM if mine => {
                    let code = frame.code();
                    return End::Reset { code, body };
                }
                kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                    self.write(self::frame(kind::SETTINGS, flag::ACK, 0, []))
                        .await;
                }
                kind::HEADERS if mine => status = frame.status().unwrap_or(status),
                kind::DATA if mine => {
                    body.extend(&frame.payload);
                    let by = frame.payload.len() as u32;
                    if by > 0 {
                        self.write([window(0, by), window(stream, by)].concat())
                            .await;
                    }
                }
                _ => {}
            }
            let ends = matches!(frame.kind, kind::HEADERS | kind::DATA);
            if mine && ends && frame.flags & flag::END_STREAM != 0 {
                return End::Answered { status, body };
            }
        }
        End::Closed
    }

    /// Reads on until the heads of so many answers have come, on whatever streams.
    pub async fn heads(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let frame = self.frame().await;
            let frame = frame.unwrap_or_else(|| panic!("{left} heads of {count} never came"));
            left -= usize::from(frame.kind == kind::HEADERS);
        }
    }

    /// Reads on to the end of the connection; the code of its last GOAWAY, if any came.
    pub async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame().await {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// The same as a proper client, which answers each PING: a graceful end waits for that.
    pub async fn end_in_order(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame().await {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.code());
            } else if frame.kind == kind::PING && frame.flags & flag::ACK == 0 {
                let ack = self::frame(kind::PING, flag::ACK, 0, &frame.payload);
                self.write(ack).await;
            }
        }
        code
    }

    /// Whether the other side still answers a PING, whatever comes before that.
    pub async fn lives(&mut self) -> bool {
        let ping = b"are you?";
        if !self.write(frame(kind::PING, 0, 0, ping)).await {
            return false;
        }
        while let Some(frame) = self.frame().await {
            if frame.kind == kind::PING && frame.flags & flag::ACK != 0 && frame.payload == ping {
                return true;
            }
        }
        false
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.unread.len() < length {
            let count = self.stream.read_buf(&mut self.unread).await;
            if !count.is_ok_and(|count| count > 0) {
                return None;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_form_of_its_rfc() {
        let long = "x".repeat(300);
        let block = block(&[("a", "b"), ("c", &long)]);
        assert_eq!(block[..8], [0, 1, b'a', 1, b'b', 0, 1, b'c']);
        assert_eq!(block[8..11], [127, 0x80 | 45, 1]);
        assert_eq!(block.len(), 11 + 300);
    }

    #[test]
    fn a_status_is_read_in_each_form() {
        let status = |payload: &[u8]| {
            let payload = payload.to_vec();
            Frame {
                kind: kind::HEADERS,
                flags: 0,
                stream: 1,
                payload,
            }
            .status()
        };
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404));
        assert_eq!(status(b"\x48\x03431"), Some(431));
        // 502 in Huffman's code: 011011 00000 00010, padded with ones.
        assert_eq!(status(&[0x48, 0x82, 0b0110_1100, 0b0000_0010]), Some(502));
        // 431: 011010 011001 00001 and the padding.
        assert_eq!(
            status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]),
            Some(431)
        );
    }
}
