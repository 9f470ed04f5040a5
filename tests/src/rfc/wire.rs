//! Messages of HTTP/1.1 on a socket, read and written octet by octet.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{SOON, within};

/// A connection with what was read and not yet used.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A start line and fields.
#[derive(Debug)]
pub struct Head {
    pub start: String,
    pub fields: HeaderMap,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    ToEnd,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// False when the other side is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        within("writing", SOON, self.stream.write_all(bytes))
            .await
            .is_ok()
    }

    /// The next head; none when the connection ended or what came is no head.
    pub async fn head(&mut self) -> Option<Head> {
        let text = self.until(b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next()?.to_owned();
        let mut fields = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            fields.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?);
        }
        Some(Head { start, fields })
    }

    /// The body, and whether it came to its end.
    pub async fn body(&mut self, framing: Framing) -> (Bytes, bool) {
        let mut body = Vec::new();
        let whole = match framing {
            Framing::None => true,
            Framing::Length(length) => self.take(length, &mut body).await,
            Framing::Chunked => self.chunks(&mut body).await.is_some(),
            Framing::ToEnd => {
                while self.fill().await {}
                body = std::mem::take(&mut self.unread);
                true
            }
        };
        (body.into(), whole)
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = std::str::from_utf8(&line).ok()?.split(';').next()?.trim();
            match usize::from_str_radix(size, 16).ok()? {
                0 => break,
                size => {
                    if !self.take(size, body).await {
                        return None;
                    }
                }
            }
            self.until(b"\r\n").await?;
        }
        while self.until(b"\r\n").await?.len() > 2 {}
        Some(())
    }

    async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        while self.unread.len() < length {
            if !self.fill().await {
                into.append(&mut self.unread);
                return false;
            }
        }
        into.extend(self.unread.drain(..length));
        true
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.unread.windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// One read; false at the end. An origin's idle connection may wait for long.
    async fn fill(&mut self) -> bool {
        let read = within("reading", SOON * 6, self.stream.read_buf(&mut self.unread)).await;
        read.is_ok_and(|count| count > 0)
    }
}

impl Framing {
    /// As the fields say; `otherwise` where they say nothing.
    pub fn of(fields: &HeaderMap, otherwise: Self) -> Self {
        if fields.contains_key("transfer-encoding") {
            return Self::Chunked;
        }
        let length = fields.get("content-length");
        length
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .map_or(otherwise, Self::Length)
    }
}

/// A field's lines as one value; none when there is no line.
pub fn joined(fields: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<_> = fields
        .get_all(name)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}
