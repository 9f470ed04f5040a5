//! The envelope of records and events: a tag of four bytes that names what follows.
//!
//! | tag | |
//! |---|---|
//! | `HC1M` | msgpack |
//! | `HC1G` | msgpack, compressed by gzip |
//! | `HC1Z` | msgpack, compressed by zstd |
//!
//! The names are those of the library `lazy-layers-cache`. What the msgpack means is defined by
//! the records of the cache and the events of the bus; this module imports nothing of ours.
//!
//! Both codecs work on the whole input: the output of compression is bounded by what it must
//! save, the output of decompression by the limit and by what an input of this size can expand
//! to. gzip is written by libdeflate, which needs the whole input and is smaller in half of
//! zlib's time (`make bench-record`); it is read by zlib-rs, which is written in Rust, since a
//! reader meets input of any kind.
//!
//! Invariant: no length that the input declares makes us allocate more than an input of this
//! size can expand to, nor more than the limit.

use std::io::{BufRead, BufReader};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor};
use zstd::bulk;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{self, find_frame_compressed_size};

/// Length of the tag in bytes.
pub const TAG: usize = 4;
/// The tag of uncompressed msgpack.
pub const PLAIN: &[u8; TAG] = b"HC1M";
const GZIP: &[u8; TAG] = b"HC1G";
const ZSTD: &[u8; TAG] = b"HC1Z";

/// Base-2 logarithm of gzip's window: the largest.
const WINDOW_BITS: u8 = 15;
/// Base-2 logarithm of zstd's window where it is read in pieces: 8 MiB, which every reader must
/// support (RFC 8878 §3.1.1.1.2).
const ZSTD_WINDOW_BITS: u32 = 23;
/// No gzip stream expands by a larger factor (zlib's documentation). [`ZSTD_RATIO`] is the same for
/// a zstd block, which makes at most 128 KiB of 4 bytes.
const GZIP_RATIO: usize = 1_032;
const ZSTD_RATIO: usize = 1 << 15;
/// A compressed form is kept only up to this share of the plain one, so that it saves 15 %.
const KEPT_PERCENT: usize = 85;

/// How something is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnvelopeCodec {
    /// libdeflate's levels, 1 to 12.
    Gzip { level: u8 },
    /// zstd's levels, 1 to 22.
    Zstd { level: u8 },
}

/// When and how an envelope is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    pub codec: EnvelopeCodec,
    /// Msgpack with fewer bytes is not compressed.
    pub min_bytes: usize,
}

/// Why bytes are not an envelope that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnvelopeError {
    /// They do not begin with one of the tags.
    Tag,
    /// They end too early.
    Truncated,
    /// They are, or declare to be, larger than the limit.
    TooLarge,
    /// The compressed data are damaged.
    Damaged,
}

impl Default for Compression {
    /// As the library `lazy-layers-cache` does: gzip from 64 KiB on.
    fn default() -> Self {
        Self {
            codec: EnvelopeCodec::GZIP,
            min_bytes: 64 << 10,
        }
    }
}

impl EnvelopeCodec {
    /// gzip at the level that is used unless another one is configured.
    pub const GZIP: Self = Self::Gzip { level: 6 };
    /// zstd at the level that is used unless another one is configured.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

impl Compression {
    /// The compressed form of `plain`, tag included; `None` if it saves less than 15 % of the
    /// msgpack. `plain` begins with a tag, too.
    pub fn shrink(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let packed = plain.get(TAG..)?;
        let most = packed.len() / 100 * KEPT_PERCENT + packed.len() % 100 * KEPT_PERCENT / 100;
        let mut out = match self.codec {
            EnvelopeCodec::Gzip { level } => gzip(packed, level, most),
            EnvelopeCodec::Zstd { level } => zstd(packed, level, most),
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
    // Fails early when the output does not fit, which is when it would save too little.
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

/// The msgpack inside `bytes`, of at most `limit` bytes. If it is not compressed, the result is
/// a slice of `bytes`.
///
/// # Errors
/// When the bytes are not an envelope, are damaged, or expand to more than the limit.
pub fn expand(bytes: &Bytes, limit: usize) -> Result<Bytes, EnvelopeError> {
    let Some((tag, body)) = bytes.split_first_chunk::<TAG>() else {
        return Err(EnvelopeError::Truncated);
    };
    match tag {
        PLAIN if body.len() > limit => Err(EnvelopeError::TooLarge),
        PLAIN => Ok(bytes.slice(TAG..)),
        GZIP => gunzip(body, limit).map(Bytes::from),
        ZSTD => unzstd(body, limit).map(Bytes::from),
        _ => Err(EnvelopeError::Tag),
    }
}

/// Reads the msgpack inside `bytes` piece by piece, without keeping it, however much it expands.
///
/// # Errors
/// When the bytes do not begin with one of the tags. Damaged data are an error of the reader:
/// [`ErrorKind::UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) where they end too early.
pub fn reader(bytes: &[u8]) -> Result<Box<dyn BufRead + '_>, EnvelopeError> {
    let Some((tag, body)) = bytes.split_first_chunk::<TAG>() else {
        return Err(EnvelopeError::Truncated);
    };
    Ok(match tag {
        PLAIN => Box::new(body),
        GZIP => Box::new(BufReader::with_capacity(STEP, GzDecoder::new(body))),
        ZSTD => {
            let mut from = Decoder::with_buffer(body).map_err(|_| EnvelopeError::Damaged)?;
            from.window_log_max(ZSTD_WINDOW_BITS)
                .map_err(|_| EnvelopeError::Damaged)?;
            Box::new(BufReader::with_capacity(STEP, from.single_frame()))
        }
        _ => return Err(EnvelopeError::Tag),
    })
}

/// Bytes of a piece, and the least by which the output grows when gzip's length field was wrong.
const STEP: usize = 64 << 10;

fn gunzip(body: &[u8], limit: usize) -> Result<Vec<u8>, EnvelopeError> {
    let mut inflate = Decompress::new_gzip(WINDOW_BITS);
    // One byte more than allowed, so that a full output means that it is too large.
    let most = limit.saturating_add(1);
    let mut out = Vec::with_capacity(likely_length(body).min(most));
    loop {
        let rest = usize::try_from(inflate.total_in())
            .ok()
            .and_then(|read| body.get(read..))
            .ok_or(EnvelopeError::Damaged)?;
        let status = inflate
            .decompress_vec(rest, &mut out, FlushDecompress::None)
            .map_err(|_| EnvelopeError::Damaged)?;
        if out.len() > limit {
            return Err(EnvelopeError::TooLarge);
        }
        match status {
            Status::StreamEnd if inflate.total_in() == body.len() as u64 => return Ok(out),
            Status::StreamEnd => return Err(EnvelopeError::Damaged),
            Status::Ok | Status::BufError if out.len() < out.capacity() => {
                return Err(EnvelopeError::Truncated);
            }
            Status::Ok | Status::BufError => {
                out.reserve_exact((most - out.len()).min(out.len().max(STEP)));
            }
        }
    }
}

/// The expected length of the output: what gzip's last four bytes say, but no more than this
/// input could expand to. It is only the first allocation; the limit is what bounds the output.
fn likely_length(body: &[u8]) -> usize {
    let said = body
        .last_chunk::<4>()
        .map_or(0, |end| u32::from_le_bytes(*end) as usize);
    // One byte more, so that the end of the stream is seen without another allocation.
    said.min(body.len().saturating_mul(GZIP_RATIO)) + 1
}

fn unzstd(body: &[u8], limit: usize) -> Result<Vec<u8>, EnvelopeError> {
    let length = match zstd_safe::get_frame_content_size(body) {
        Ok(Some(length)) => usize::try_from(length).map_err(|_| EnvelopeError::TooLarge)?,
        Ok(None) | Err(_) => return Err(EnvelopeError::Damaged),
    };
    if length > limit {
        return Err(EnvelopeError::TooLarge);
    }
    match find_frame_compressed_size(body) {
        Err(_) => return Err(EnvelopeError::Truncated),
        Ok(frame) if frame != body.len() => return Err(EnvelopeError::Damaged),
        Ok(_) if length > body.len().saturating_mul(ZSTD_RATIO) => {
            return Err(EnvelopeError::TooLarge);
        }
        Ok(_) => {}
    }
    let out = bulk::decompress(body, length).map_err(|_| EnvelopeError::Damaged)?;
    (out.len() == length)
        .then_some(out)
        .ok_or(EnvelopeError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_length_makes_no_more_room_than_the_input_can_fill() {
        let tiny = [&[0; 20][..], &u32::MAX.to_le_bytes()].concat();
        assert!(likely_length(&tiny) <= 24 * GZIP_RATIO + 1);
        // A zstd frame of one byte that claims 20 MiB.
        let claim = (20_u32 << 20).to_le_bytes();
        let frame = [b"HC1Z\x28\xb5\x2f\xfd\xa0", &claim[..], b"\x09\0\0x"].concat();
        assert_eq!(
            expand(&frame.into(), 25 << 20),
            Err(EnvelopeError::TooLarge)
        );
    }

    #[test]
    fn what_is_as_it_is_is_a_part_of_what_came() {
        let bytes = Bytes::from_static(b"HC1M\x80");
        let packed = expand(&bytes, 1).unwrap();
        assert!(bytes.as_ptr_range().contains(&packed.as_ptr()));
        assert_eq!(expand(&bytes, 0), Err(EnvelopeError::TooLarge));
    }
}
