//! The first message of TLS, byte by byte: for what no proper client would send.
//!
//! What a server with TLS 1.2 answers to it can be read without keys: version, cipher suite,
//! compression and certificate, or an alert.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{SOON, within};

/// Types of records and of messages of the handshake.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_HELLO_DONE: u8 = 14;

/// A ClientHello that is being put together.
#[derive(Clone, Debug)]
pub struct Hello {
    /// 0x0303 for TLS 1.2.
    pub version: u16,
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// Methods of compression.
    pub compressions: Vec<u8>,
    /// Signature schemes.
    pub signatures: Vec<u16>,
    /// The name of the server, as it is written.
    pub name: Option<Vec<u8>>,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloAnswer {
    /// The handshake would go on.
    Hello {
        version: u16,
        suite: u16,
        compression: u8,
        certificate: Vec<u8>,
    },
    /// An alert, and whether the connection was closed after it.
    Alert(u8),
    /// Bytes that are no TLS.
    Text(String),
    /// Nothing but the end.
    Closed,
}

/// ECDHE with ECDSA and RSA, each with AES-128-GCM.
pub const ECDHE_ECDSA: u16 = 0xc02b;
pub const ECDHE_RSA: u16 = 0xc02f;

/// ECDSA on P-256 with SHA-256, and RSA-PSS and RSA-PKCS1 with SHA-256.
pub const ECDSA_SHA256: u16 = 0x0403;
pub const PSS_SHA256: u16 = 0x0804;
pub const RSA_SHA256: u16 = 0x0401;

impl Hello {
    /// One of TLS 1.2 that a server accepts.
    pub fn tls12(name: &str) -> Self {
        Self {
            version: 0x0303,
            suites: vec![ECDHE_ECDSA, ECDHE_RSA],
            compressions: vec![0],
            signatures: vec![ECDSA_SHA256, PSS_SHA256, RSA_SHA256],
            name: Some(name.into()),
        }
    }

    /// As a message of the handshake, without records.
    pub fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(name) = &self.name {
            // One entry of the type host_name.
            extension(
                &mut extensions,
                0,
                &of_16(&[&[0], &of_16(name)[..]].concat()),
            );
        }
        extension(&mut extensions, 10, &of_16(&words(&[29, 23, 24])));
        extension(&mut extensions, 11, &[1, 0]);
        extension(&mut extensions, 13, &of_16(&words(&self.signatures)));
        extension(&mut extensions, 23, &[]);
        let compressions = [&[self.compressions.len() as u8][..], &self.compressions].concat();
        let body = [
            &self.version.to_be_bytes()[..],
            &[7; 32],
            &[0],
            &of_16(&words(&self.suites)),
            &compressions,
            &of_16(&extensions),
        ]
        .concat();
        message(&body)
    }

    /// Sends it in one record, and reads what comes.
    pub async fn send(&self, address: SocketAddr) -> HelloAnswer {
        answer(address, &records(&self.message(), 1 << 14)).await
    }
}

/// A message of this content that says that it is a ClientHello.
pub fn message(body: &[u8]) -> Vec<u8> {
    let length = &(body.len() as u32).to_be_bytes()[1..];
    [&[CLIENT_HELLO], length, body].concat()
}

/// The message in records of so many bytes.
pub fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = (part.len() as u16).to_be_bytes();
        [&[HANDSHAKE, 3, 1], &length[..], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

/// Sends these bytes on a new connection, and reads what a server answers to a ClientHello.
pub async fn answer(address: SocketAddr, bytes: &[u8]) -> HelloAnswer {
    let stream = within("connecting", SOON, TcpStream::connect(address)).await;
    let mut stream = stream.expect("the listener accepts");
    // A server may have enough before the end.
    let _ = within("writing a ClientHello", SOON, stream.write_all(bytes)).await;
    let mut read = Vec::new();
    let mut found = None;
    while found.is_none() {
        let more = within("reading an answer", SOON, stream.read_buf(&mut read)).await;
        found = understood(&read);
        if !more.is_ok_and(|count| count > 0) {
            break;
        }
    }
    found.unwrap_or(match read.is_empty() {
        true => HelloAnswer::Closed,
        false => HelloAnswer::Text(String::from_utf8_lossy(&read).into_owned()),
    })
}

/// What the bytes say, once they say enough.
fn understood(bytes: &[u8]) -> Option<HelloAnswer> {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while let [kind @ (ALERT | HANDSHAKE), 3, _, high, low, content @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (content, more) = content.split_at_checked(length)?;
        if *kind == ALERT {
            return content.get(1).copied().map(HelloAnswer::Alert);
        }
        messages.extend_from_slice(content);
        rest = more;
    }
    let (mut hello, mut certificate) = (None, Vec::new());
    let mut rest = &messages[..];
    while let [kind, high, middle, low, content @ ..] = rest {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let (content, more) = content.split_at_checked(length)?;
        match *kind {
            SERVER_HELLO => hello = server_hello(content),
            CERTIFICATE => certificate = first_certificate(content)?,
            SERVER_HELLO_DONE => {
                let (version, suite, compression) = hello?;
                return Some(HelloAnswer::Hello {
                    version,
                    suite,
                    compression,
                    certificate,
                });
            }
            _ => {}
        }
        rest = more;
    }
    None
}

fn server_hello(content: &[u8]) -> Option<(u16, u16, u8)> {
    let version = u16::from_be_bytes([*content.first()?, *content.get(1)?]);
    // The version, 32 random bytes, and a session's name with its length.
    let at = 35 + usize::from(*content.get(34)?);
    let suite = u16::from_be_bytes([*content.get(at)?, *content.get(at + 1)?]);
    Some((version, suite, *content.get(at + 2)?))
}

fn first_certificate(content: &[u8]) -> Option<Vec<u8>> {
    let length = content.get(3..6)?;
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    Some(content.get(6..6 + length)?.to_vec())
}

fn extension(all: &mut Vec<u8>, number: u16, content: &[u8]) {
    all.extend(number.to_be_bytes());
    all.extend(of_16(content));
}

/// The content behind its length in two bytes.
fn of_16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_the_message_and_an_alert_is_understood() {
        let message = Hello::tls12("a.example").message();
        let records = records(&message, 1);
        assert_eq!(records.len(), 6 * message.len());
        let again: Vec<u8> = records.chunks(6).map(|record| record[5]).collect();
        assert_eq!(again, message);
        assert_eq!(
            understood(&[21, 3, 3, 0, 2, 2, 112]),
            Some(HelloAnswer::Alert(112))
        );
        assert_eq!(understood(&[21, 3, 3, 0, 2, 2]), None);
        assert_eq!(understood(b"HTTP/1.1 400 "), None);
    }
}
