//! Field sections (RFC 9204) without a dynamic table, which we announce to have none of: a client
//! then writes literals and references to the static table alone.
//!
//! A section is bounded while it is read: by its octets and by its fields, each of which counts 32
//! octets more than name and value (RFC 9114 §4.2.2), since a reference of one octet makes a field.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::hpack;

/// A name and a value, as they stand in a section.
pub type RawField = (Bytes, Bytes);

/// What a section may have.
#[derive(Clone, Copy, Debug)]
pub struct SectionLimits {
    pub octets: u64,
    pub fields: usize,
}

/// Why a section is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectionError {
    /// It is not in the form of RFC 9204, or refers to the dynamic table.
    Broken,
    /// It is over a limit.
    TooLarge,
}

/// The octets that a field counts besides its name and value.
const OVERHEAD: u64 = 32;

/// Reads all fields of a section.
pub fn decode(section: &[u8], limits: SectionLimits) -> Result<Vec<RawField>, SectionError> {
    let mut octets = SectionReader(section);
    // The required insert count must be zero; the base then says nothing.
    let (_, count) = octets.integer(8)?;
    octets.integer(7)?;
    if count != 0 {
        return Err(SectionError::Broken);
    }
    let (mut fields, mut size) = (Vec::new(), 0);
    while !octets.0.is_empty() {
        let field = octets.field()?;
        size += (field.0.len() + field.1.len()) as u64 + OVERHEAD;
        if size > limits.octets || fields.len() >= limits.fields {
            return Err(SectionError::TooLarge);
        }
        fields.push(field);
    }
    Ok(fields)
}

/// Writes the section of a response's head.
pub fn encode_response(status: StatusCode, headers: &HeaderMap) -> BytesMut {
    let mut section = begin(headers);
    match status_index(status) {
        Some(index) => put_integer(&mut section, 0b1100_0000, 6, index),
        None => {
            put_integer(&mut section, 0b0101_0000, 4, STATUS_NAME);
            put_text(&mut section, status.as_str().as_bytes());
        }
    }
    put_fields(&mut section, headers);
    section
}

/// Writes the section of trailers.
pub fn encode_trailers(trailers: &HeaderMap) -> BytesMut {
    let mut section = begin(trailers);
    put_fields(&mut section, trailers);
    section
}

fn begin(headers: &HeaderMap) -> BytesMut {
    let mut section = BytesMut::with_capacity(64 + headers.len() * 48);
    // Required insert count and base: no dynamic table.
    section.put_u16(0);
    section
}

fn put_fields(section: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        match STATIC_NAMES.get(name.as_str()) {
            Some(index) => put_integer(section, 0b0101_0000, 4, *index),
            None => {
                let name = name.as_str().as_bytes();
                put_integer(section, 0b0010_0000, 3, name.len() as u64);
                section.put_slice(name);
            }
        }
        put_text(section, value.as_bytes());
    }
}

/// An integer with a prefix of this many bits; `first` are the bits before it.
fn put_integer(into: &mut BytesMut, first: u8, bits: u32, number: u64) {
    let most = (1 << bits) - 1;
    if number < most {
        return into.put_u8(first | number as u8);
    }
    into.put_u8(first | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        into.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.put_u8(rest as u8);
}

/// A text without Huffman coding: it takes less time, and more octets.
fn put_text(into: &mut BytesMut, text: &[u8]) {
    put_integer(into, 0, 7, text.len() as u64);
    into.put_slice(text);
}

/// What is left of a section.
struct SectionReader<'a>(&'a [u8]);

impl SectionReader<'_> {
    /// The bits before an integer, and the integer (RFC 7541 §5.1).
    fn integer(&mut self, bits: u32) -> Result<(u8, u64), SectionError> {
        let (first, mut rest) = self.0.split_first().ok_or(SectionError::Broken)?;
        let most = (1u16 << bits) - 1;
        let mut number = u64::from(u16::from(*first) & most);
        if number == u64::from(most) {
            for shift in (0..).step_by(7) {
                let (octet, after) = rest.split_first().ok_or(SectionError::Broken)?;
                rest = after;
                // No length in a section needs more.
                if shift > 28 {
                    return Err(SectionError::Broken);
                }
                number += u64::from(octet & 0x7f) << shift;
                if octet & 0x80 == 0 {
                    break;
                }
            }
        }
        self.0 = rest;
        Ok((*first, number))
    }

    /// A text whose length has a prefix of this many bits, and whose coding is told by the bit
    /// before them.
    fn text(&mut self, bits: u32) -> Result<Bytes, SectionError> {
        let (first, length) = self.integer(bits)?;
        let length = usize::try_from(length).map_err(|_| SectionError::Broken)?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(SectionError::Broken)?;
        self.0 = rest;
        if first & (1 << bits) == 0 {
            return Ok(Bytes::copy_from_slice(text));
        }
        let mut decoded = Vec::with_capacity(text.len() * 2);
        hpack::decode(text, &mut decoded).ok_or(SectionError::Broken)?;
        Ok(decoded.into())
    }

    fn field(&mut self) -> Result<RawField, SectionError> {
        let entry = |index: u64| {
            let index = usize::try_from(index).ok();
            let found = index.and_then(|index| STATIC_TABLE.get(index));
            found.copied().ok_or(SectionError::Broken)
        };
        match self.0.first().copied().unwrap_or_default() {
            first if first & 0b1100_0000 == 0b1100_0000 => {
                let (name, value) = entry(self.integer(6)?.1)?;
                Ok((
                    Bytes::from_static(name.as_bytes()),
                    Bytes::from_static(value.as_bytes()),
                ))
            }
            first if first & 0b1101_0000 == 0b0101_0000 => {
                let (name, _) = entry(self.integer(4)?.1)?;
                Ok((Bytes::from_static(name.as_bytes()), self.text(7)?))
            }
            first if first & 0b1110_0000 == 0b0010_0000 => Ok((self.text(3)?, self.text(7)?)),
            // All other forms refer to the dynamic table.
            _ => Err(SectionError::Broken),
        }
    }
}

/// The first entry of the static table that is named `:status`.
const STATUS_NAME: u64 = 24;

fn status_index(status: StatusCode) -> Option<u64> {
    Some(match status.as_u16() {
        103 => 24,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => return None,
    })
}

/// The first entry of each name.
static STATIC_NAMES: LazyLock<HashMap<&'static str, u64, foldhash::fast::RandomState>> =
    LazyLock::new(|| {
        let mut names = HashMap::default();
        for (index, (name, _)) in STATIC_TABLE.iter().enumerate() {
            names.entry(*name).or_insert(index as u64);
        }
        names
    });

/// The static table (RFC 9204, appendix A).
static STATIC_TABLE: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    (
        "strict-transport-security",
        "max-age=31536000; includesubdomains",
    ),
    (
        "strict-transport-security",
        "max-age=31536000; includesubdomains; preload",
    ),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    (
        "content-security-policy",
        "script-src 'none'; object-src 'none'; base-uri 'none'",
    ),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SectionLimits = SectionLimits {
        octets: 1 << 16,
        fields: 100,
    };

    fn texts(fields: &[RawField]) -> Vec<(String, String)> {
        let text = |octets: &Bytes| String::from_utf8(octets.to_vec()).unwrap();
        fields
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    /// RFC 9204, appendix B.1: a literal with a name of the static table.
    #[test]
    fn the_example_of_the_rfc() {
        let section = b"\x00\x00\x51\x0b/index.html";
        let fields = decode(section, LIMITS).unwrap();
        assert_eq!(
            texts(&fields),
            [(":path".to_owned(), "/index.html".to_owned())]
        );
    }

    #[test]
    fn huffman_codes_are_read() {
        // "www.example.com" in Huffman codes (RFC 7541, appendix C.4.1).
        let coded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        let section = [&[0, 0, 0x50, 0x8c][..], &coded].concat();
        let fields = decode(&section, LIMITS).unwrap();
        assert_eq!(
            texts(&fields),
            [(":authority".to_owned(), "www.example.com".to_owned())]
        );
    }

    #[test]
    fn the_dynamic_table_is_no_part_of_it() {
        for section in [
            &[2, 0, 0xc0][..],
            &[0, 0, 0x80],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 0],
            &[0, 0, 0xff, 0x24],
            &[0, 0, 0x51, 5, b'a'],
            &[0, 0, 0x51, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0],
            &[],
        ] {
            assert_eq!(
                decode(section, LIMITS),
                Err(SectionError::Broken),
                "{section:?}"
            );
        }
    }

    #[test]
    fn a_field_of_one_octet_counts_as_much_as_any_other() {
        let section = [&[0, 0][..], &[0xd1; 101]].concat();
        assert_eq!(decode(&section, LIMITS), Err(SectionError::TooLarge));
        let few = SectionLimits {
            octets: 100,
            fields: 100,
        };
        // `:method: GET` counts 42.
        assert!(decode(&section[..4], few).is_ok());
        assert_eq!(decode(&section[..5], few), Err(SectionError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            status in 100u16..600,
            fields in prop::collection::vec(("[a-z][a-z0-9-]{0,20}", "[!-~]{0,300}"), 0..20),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            let section = encode_response(status, &headers);
            let read = texts(&decode(&section, LIMITS).unwrap());
            prop_assert_eq!(&read[0], &(":status".to_owned(), status.as_str().to_owned()));
            let written = headers.iter().map(|(name, value)| {
                (name.to_string(), value.to_str().unwrap().to_owned())
            });
            prop_assert_eq!(&read[1..], &written.collect::<Vec<_>>()[..]);
        }

        #[test]
        fn no_octets_make_it_panic(section in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&section, LIMITS);
        }
    }
}
