//! JA4, a short text by which the software of a client can be recognised: it is made of what its
//! ClientHello offers (FoxIO's specification of JA4, version 1).
//!
//! rustls does not tell the extensions, so the octets of the handshake are read here again. They
//! were accepted by rustls before; what can't be read nevertheless gives no fingerprint.

use aws_lc_rs::digest;

/// The numbers of the extensions that are needed (IANA's registry of TLS extensions).
mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const SIGNATURE_ALGORITHMS: u16 = 13;
    pub const ALPN: u16 = 16;
    pub const SUPPORTED_VERSIONS: u16 = 43;
}

/// The content type of records of the handshake, and the message type of a ClientHello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The transport that a ClientHello came over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloTransport {
    Tcp,
    Quic,
}

/// What a ClientHello offers.
#[derive(Default, Debug)]
struct OfferedParameters {
    version: u16,
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    signatures: Vec<u16>,
    /// The first protocol of the extension ALPN.
    protocol: Vec<u8>,
}

/// The fingerprint of a ClientHello that came over TCP, in records. None if they hold none.
pub fn ja4_of_records(records: &[u8]) -> Option<String> {
    ja4(&message(records)?, HelloTransport::Tcp)
}

/// The fingerprint of a ClientHello as a handshake message. None if it is none.
pub fn ja4(message: &[u8], transport: HelloTransport) -> Option<String> {
    let offered = OfferedParameters::read(message)?;
    Some(offered.fingerprint(transport))
}

/// Joins the fragments of the handshake.
fn message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(records.len());
    while let [HANDSHAKE, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (fragment, rest) = rest.split_at_checked(length)?;
        message.extend_from_slice(fragment);
        records = rest;
    }
    Some(message)
}

/// Reads octets from the front of a slice.
struct OctetCursor<'a>(&'a [u8]);

impl<'a> OctetCursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|octets| octets[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// What follows a length of one octet.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// What follows a length of two octets.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

/// The numbers of a list, without those that only test that peers ignore what they do not know
/// (GREASE, RFC 8701).
fn numbers(list: &[u8]) -> Vec<u16> {
    let all = list
        .chunks_exact(2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]));
    all.filter(|number| !is_grease(*number)).collect()
}

fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

impl OfferedParameters {
    fn read(message: &[u8]) -> Option<Self> {
        let mut hello = OctetCursor(message);
        if hello.u8()? != CLIENT_HELLO {
            return None;
        }
        hello.take(3)?;
        let mut offered = Self {
            version: hello.u16()?,
            ..Self::default()
        };
        hello.take(32)?;
        hello.short()?;
        offered.ciphers = numbers(hello.long()?);
        hello.short()?;
        let mut extensions = OctetCursor(hello.long().unwrap_or_default());
        while !extensions.0.is_empty() {
            let (kind, body) = (extensions.u16()?, extensions.long()?);
            if !is_grease(kind) {
                offered.extensions.push(kind);
                offered.note(kind, body);
            }
        }
        Some(offered)
    }

    fn note(&mut self, kind: u16, body: &[u8]) {
        let mut body = OctetCursor(body);
        match kind {
            extension::SIGNATURE_ALGORITHMS => {
                self.signatures = numbers(body.long().unwrap_or_default());
            }
            extension::SUPPORTED_VERSIONS => {
                let offered = numbers(body.short().unwrap_or_default());
                self.version = offered.into_iter().max().unwrap_or(self.version);
            }
            extension::ALPN => {
                let mut protocols = OctetCursor(body.long().unwrap_or_default());
                self.protocol = protocols.short().unwrap_or_default().to_vec();
            }
            _ => {}
        }
    }

    fn fingerprint(&self, transport: HelloTransport) -> String {
        let transport = match transport {
            HelloTransport::Tcp => 't',
            HelloTransport::Quic => 'q',
        };
        let version = match self.version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            _ => "00",
        };
        let name = match self.extensions.contains(&extension::SERVER_NAME) {
            true => 'd',
            false => 'i',
        };
        let (ciphers, extensions) = (self.ciphers.len().min(99), self.extensions.len().min(99));
        let protocol = ends(&self.protocol);
        let mut sorted = self.ciphers.clone();
        sorted.sort_unstable();
        let offered_ciphers = hashed(&joined(&sorted));
        format!(
            "{transport}{version}{name}{ciphers:02}{extensions:02}{protocol}_{offered_ciphers}_{}",
            self.hashed_extensions()
        )
    }

    fn hashed_extensions(&self) -> String {
        let told_already = [extension::SERVER_NAME, extension::ALPN];
        let rest = self.extensions.iter().copied();
        let mut rest: Vec<u16> = rest.filter(|kind| !told_already.contains(kind)).collect();
        rest.sort_unstable();
        let mut text = joined(&rest);
        if !self.signatures.is_empty() && !text.is_empty() {
            text.push('_');
            text.push_str(&joined(&self.signatures));
        }
        hashed(&text)
    }
}

/// The first and the last character of a protocol's name; in hexadecimal if one is no letter or
/// digit.
fn ends(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else {
        return "00".to_owned();
    };
    match first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        true => [*first, *last].map(char::from).iter().collect(),
        false => {
            let (first, last) = (format!("{first:02x}"), format!("{last:02x}"));
            format!("{}{}", &first[..1], &last[1..])
        }
    }
}

fn joined(numbers: &[u16]) -> String {
    let hex = numbers.iter().map(|number| format!("{number:04x}"));
    hex.collect::<Vec<_>>().join(",")
}

/// The first twelve hexadecimal digits of a text's SHA-256; zeros for an empty text.
fn hashed(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let octets = digest.as_ref()[..6].iter();
    octets.map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification: Chrome's parameters.
    fn chrome() -> OfferedParameters {
        OfferedParameters {
            version: 0x0304,
            ciphers: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
                0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
            ],
            signatures: vec![
                0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
            ],
            protocol: b"h2".to_vec(),
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(
            chrome().fingerprint(HelloTransport::Tcp),
            "t13d1516h2_8daaf6152771_e5627efa2ab1"
        );
    }

    #[test]
    fn what_is_not_there_is_zero() {
        let none = OfferedParameters::default();
        assert_eq!(
            none.fingerprint(HelloTransport::Quic),
            "q00i000000_000000000000_000000000000"
        );
    }

    #[test]
    fn grease_is_not_counted() {
        assert_eq!(numbers(&[0x0a, 0x0a, 0x13, 0x01, 0xfa, 0xfa]), [0x1301]);
        assert!(!is_grease(0x0a1a));
    }

    #[test]
    fn what_is_cut_gives_none_and_no_panic() {
        let mut hello = vec![CLIENT_HELLO, 0, 0, 0, 3, 3];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0x13, 0x01, 1, 0, 0, 4, 0, 43, 0, 0]);
        assert_eq!(
            ja4(&hello, HelloTransport::Tcp).unwrap(),
            format!("t12i010100_{}_{}", hashed("1301"), hashed("002b"))
        );
        for at in 0..hello.len() - 6 {
            assert_eq!(ja4(&hello[..at], HelloTransport::Tcp), None, "{at}");
        }
        assert_eq!(ja4_of_records(&[HANDSHAKE, 3, 1, 0, 9, 1]), None);
    }
}
