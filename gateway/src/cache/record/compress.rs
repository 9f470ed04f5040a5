//! The tag in front of a record, and the compression that it names.
//!
//! Both codecs work on the whole: what compresses is bounded by what it must save, what
//! expands by the limit and by what an input of this size can hold at all. gzip is written
//! by libdeflate, which has the whole before it and is smaller in half of zlib's time
//! (`make bench-record`), and read by zlib-rs, which is Rust, since readers meet anything.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use libdeflater::{CompressionLvl, Compressor};
use zstd::bulk;
use zstd::zstd_safe::{self, find_frame_compressed_size};

use super::{Corrupt, Limits, Record};

/// Bytes of the tag.
pub const TAG: usize = 4;
/// The msgpack as it is.
pub const PLAIN: &[u8; TAG] = b"HC1M";
const GZIP: &[u8; TAG] = b"HC1G";
const ZSTD: &[u8; TAG] = b"HC1Z";

/// gzip's window, the largest.
const WINDOW_BITS: u8 = 15;
/// No gzip stream expands more (zlib's documentation), and no zstd block: 128 KiB of 4 bytes.
const GZIP_RATIO: usize = 1_032;
const ZSTD_RATIO: usize = 1 << 15;
/// Of a compressed form at most this much of the plain one is kept: it saves 15 %.
const KEPT_PERCENT: usize = 85;

/// How a record is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// libdeflate's levels, 1 to 12.
    Gzip { level: u8 },
    /// zstd's levels, 1 to 22.
    Zstd { level: u8 },
}

/// When and how records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    pub codec: Codec,
    /// Records whose msgpack is smaller are left as they are.
    pub min_bytes: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            codec: Codec::GZIP,
            min_bytes: 64 << 10,
        }
    }
}

impl Codec {
    /// gzip as it is written unless configured otherwise.
    pub const GZIP: Self = Self::Gzip { level: 6 };
    /// zstd likewise.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

impl Compression {
    /// Whether a record with `packed` bytes of msgpack may shrink enough.
    pub(super) fn is_worth_trying(&self, record: &Record, packed: usize) -> bool {
        packed >= self.min_bytes
            && match record {
                Record::Entry(stored) => !is_compressed(&stored.headers),
                Record::Varies(_) => true,
            }
    }

    /// The compressed form of `plain`, tags included, if it saves 15 % of the msgpack.
    pub(super) fn shrink(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let packed = plain.get(TAG..)?;
        let most = packed.len() / 100 * KEPT_PERCENT + packed.len() % 100 * KEPT_PERCENT / 100;
        let mut out = match self.codec {
            Codec::Gzip { level } => gzip(packed, level, most),
            Codec::Zstd { level } => zstd(packed, level, most),
        }?;
        out.shrink_to_fit();
        Some(out)
    }
}

fn gzip(packed: &[u8], level: u8, most: usize) -> Option<Vec<u8>> {
    let level = CompressionLvl::new(i32::from(level.clamp(1, 12))).ok()?;
    let mut out = vec![0; TAG + most];
    let (tag, room) = out.split_at_mut(TAG);
    tag.copy_from_slice(GZIP);
    // It ends early where there is too little room, which is where it saves too little.
    let written = Compressor::new(level).gzip_compress(packed, room).ok()?;
    out.truncate(TAG + written);
    Some(out)
}

fn zstd(packed: &[u8], level: u8, most: usize) -> Option<Vec<u8>> {
    let mut out = std::io::Cursor::new(room(ZSTD, most));
    out.set_position(TAG as u64);
    let written = bulk::Compressor::new(i32::from(level.clamp(1, 22)))
        .and_then(|mut compressor| compressor.compress_to_buffer(packed, &mut out))
        .ok()?;
    (written <= most).then(|| out.into_inner())
}

fn room(tag: &[u8; TAG], most: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(TAG + most);
    out.extend_from_slice(tag);
    out
}

/// The msgpack of a stored record.
pub fn expand(bytes: &Bytes, limits: &Limits) -> Result<Bytes, Corrupt> {
    if bytes.len() > limits.encoded {
        return Err(Corrupt::TooLarge);
    }
    let Some((tag, body)) = bytes.split_first_chunk::<TAG>() else {
        return Err(Corrupt::Truncated);
    };
    match tag {
        PLAIN if body.len() > limits.expanded => Err(Corrupt::TooLarge),
        PLAIN => Ok(bytes.slice(TAG..)),
        GZIP => gunzip(body, limits.expanded).map(Bytes::from),
        ZSTD => unzstd(body, limits.expanded).map(Bytes::from),
        _ => Err(Corrupt::Tag),
    }
}

/// Bytes by which the output grows when the length at gzip's end was wrong.
const STEP: usize = 64 << 10;

fn gunzip(body: &[u8], limit: usize) -> Result<Vec<u8>, Corrupt> {
    let mut inflate = Decompress::new_gzip(WINDOW_BITS);
    // One byte more than fits, so that a full output means that it is too large.
    let most = limit.saturating_add(1);
    let mut out = Vec::with_capacity(likely_length(body).min(most));
    loop {
        let rest = usize::try_from(inflate.total_in())
            .ok()
            .and_then(|read| body.get(read..))
            .ok_or(Corrupt::Compression)?;
        let status = inflate
            .decompress_vec(rest, &mut out, FlushDecompress::None)
            .map_err(|_| Corrupt::Compression)?;
        if out.len() > limit {
            return Err(Corrupt::TooLarge);
        }
        match status {
            Status::StreamEnd if inflate.total_in() == body.len() as u64 => return Ok(out),
            Status::StreamEnd => return Err(Corrupt::Compression),
            Status::Ok | Status::BufError if out.len() < out.capacity() => {
                return Err(Corrupt::Truncated);
            }
            Status::Ok | Status::BufError => {
                out.reserve_exact((most - out.len()).min(out.len().max(STEP)));
            }
        }
    }
}

/// How long the output may become: gzip's own word (its last four bytes), as far as this
/// input could hold it. Only where the output starts; the limit ends it.
pub(super) fn likely_length(body: &[u8]) -> usize {
    let said = body
        .last_chunk::<4>()
        .map_or(0, |end| u32::from_le_bytes(*end) as usize);
    // One more, so that the end of the stream is seen without growing.
    said.min(body.len().saturating_mul(GZIP_RATIO)) + 1
}

fn unzstd(body: &[u8], limit: usize) -> Result<Vec<u8>, Corrupt> {
    let length = match zstd_safe::get_frame_content_size(body) {
        Ok(Some(length)) => usize::try_from(length).map_err(|_| Corrupt::TooLarge)?,
        Ok(None) | Err(_) => return Err(Corrupt::Compression),
    };
    if length > limit {
        return Err(Corrupt::TooLarge);
    }
    match find_frame_compressed_size(body) {
        Err(_) => return Err(Corrupt::Truncated),
        Ok(frame) if frame != body.len() => return Err(Corrupt::Compression),
        Ok(_) if length > body.len().saturating_mul(ZSTD_RATIO) => return Err(Corrupt::TooLarge),
        Ok(_) => {}
    }
    let out = bulk::decompress(body, length).map_err(|_| Corrupt::Compression)?;
    (out.len() == length)
        .then_some(out)
        .ok_or(Corrupt::Compression)
}

/// Whether a response's body has been compressed already, by its header.
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
    // An SVG is text.
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
    // The office formats, which are zip.
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
