//! Which records are worth compressing: not those whose body is already compressed.
//!
//! The compressed forms themselves are in [`crate::envelope`], which events use too.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::StoreRecord;
use crate::envelope::Compression;

/// Whether a record with `packed` bytes of msgpack may become enough smaller.
pub fn is_worth_trying(compression: &Compression, record: &StoreRecord, packed: usize) -> bool {
    packed >= compression.min_bytes
        && match record {
            StoreRecord::Entry(stored) => !is_compressed(&stored.headers),
            StoreRecord::Varies(_) => true,
        }
}

/// Whether a response's body is already compressed, according to its header.
fn is_compressed(headers: &HeaderMap) -> bool {
    let coded = headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        !value
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
    });
    coded || headers.get(CONTENT_TYPE).is_some_and(is_compressed_type)
}

fn is_compressed_type(value: &HeaderValue) -> bool {
    let value = value.as_bytes().to_ascii_lowercase();
    let essence = value
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    // An SVG is text, and so not compressed.
    essence != b"image/svg+xml"
        && (COMPRESSED_FAMILIES
            .iter()
            .any(|family| essence.starts_with(family))
            || essence.ends_with(b"+zip")
            || COMPRESSED_TYPES.contains(&essence))
}

const COMPRESSED_FAMILIES: [&[u8]; 4] = [
    b"image/",
    b"video/",
    b"audio/",
    // The office formats, which are zip files.
    b"application/vnd.openxmlformats-officedocument.",
];

const COMPRESSED_TYPES: [&[u8]; 15] = [
    b"application/zip",
    b"application/x-zip-compressed",
    b"application/gzip",
    b"application/x-gzip",
    b"application/zstd",
    b"application/x-bzip2",
    b"application/x-xz",
    b"application/x-7z-compressed",
    b"application/vnd.rar",
    b"application/x-rar-compressed",
    b"application/java-archive",
    b"application/vnd.android.package-archive",
    b"application/x-brotli",
    b"font/woff",
    b"font/woff2",
];
