//! Makes a coding of a whole body. Slow: never call it on a thread that serves requests.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use libdeflater::{CompressionLvl, Compressor};
use zstd::bulk;
use zstd::zstd_safe::CParameter;

use super::ContentCoding;

/// How well, and so how slowly, each coding is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodingLevels {
    /// libdeflate's levels, 1 to 12.
    pub gzip: u8,
    /// brotli's qualities, 0 to 11.
    pub brotli: u8,
    /// zstd's levels, 1 to 19.
    pub zstd: u8,
}

impl CodingLevels {
    /// The same level for all codings.
    pub fn all(level: u8) -> Self {
        Self {
            gzip: level,
            brotli: level,
            zstd: level,
        }
    }
}

/// Base-2 logarithm of the largest window that a reader of zstd in HTTP must support: 8 MiB
/// (RFC 9659 §3). Browsers show a blank page beyond it.
const ZSTD_WINDOW_BITS: u32 = 23;
/// The same for brotli, whose largest window without the extension is 16 MiB.
const BROTLI_WINDOW_BITS: i32 = 22;

/// The coded form of `plain`. None: it would be longer than `most`.
pub fn encode(
    coding: ContentCoding,
    levels: &CodingLevels,
    plain: &[u8],
    most: usize,
) -> Option<Vec<u8>> {
    let coded = match coding {
        ContentCoding::Gzip => gzip(plain, levels.gzip, most),
        ContentCoding::Brotli => brotli(plain, levels.brotli, most),
        ContentCoding::Zstd => zstd(plain, levels.zstd, most),
    };
    coded.map(|mut coded| {
        coded.shrink_to_fit();
        coded
    })
}

fn gzip(plain: &[u8], level: u8, most: usize) -> Option<Vec<u8>> {
    let level = CompressionLvl::new(i32::from(level.clamp(1, 12))).ok()?;
    let mut out = vec![0; most];
    // Fails early when the output does not fit.
    let written = Compressor::new(level).gzip_compress(plain, &mut out).ok()?;
    out.truncate(written);
    Some(out)
}

fn brotli(plain: &[u8], quality: u8, most: usize) -> Option<Vec<u8>> {
    let params = BrotliEncoderParams {
        quality: i32::from(quality.min(11)),
        lgwin: BROTLI_WINDOW_BITS,
        size_hint: plain.len(),
        ..BrotliEncoderParams::default()
    };
    let mut out = BoundedOutput {
        bytes: Vec::with_capacity(most.min(plain.len() / 3 + 64)),
        most,
    };
    brotli::BrotliCompress(&mut &*plain, &mut out, &params).ok()?;
    Some(out.bytes)
}

/// The compressor knows the size of the whole, writes it into the frame and chooses no larger
/// window than it needs.
fn zstd(plain: &[u8], level: u8, most: usize) -> Option<Vec<u8>> {
    let mut compressor = bulk::Compressor::new(i32::from(level.clamp(1, 19))).ok()?;
    if plain.len() > 1 << ZSTD_WINDOW_BITS {
        let window = CParameter::WindowLog(ZSTD_WINDOW_BITS);
        compressor.set_parameter(window).ok()?;
    }
    let mut out = Vec::with_capacity(most);
    let written = compressor.compress_to_buffer(plain, &mut out).ok()?;
    (written <= most).then_some(out)
}

/// Output that fails when it grows longer than it may.
struct BoundedOutput {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for BoundedOutput {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::CODINGS;
    use super::super::decode::decode;
    use super::*;
    use proptest::prelude::*;

    const USUAL: CodingLevels = CodingLevels {
        gzip: 6,
        brotli: 5,
        zstd: 3,
    };

    #[test]
    fn a_form_that_saves_too_little_is_none() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let noise: Vec<u8> = (0..4096).map(|_| random()).collect();
        for coding in CODINGS {
            assert_eq!(encode(coding, &USUAL, &noise, 1024), None, "{coding:?}");
        }
    }

    /// RFC 8878 §3.1.1.1: the descriptor tells whether the size is there; with a single segment the
    /// window is that size.
    #[test]
    fn zstd_tells_its_size_and_no_window_above_8_mib() {
        let text: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        assert!(text.len() > 8 << 20);
        for level in [1, 3, 19] {
            for plain in [&text[..300], &text[..200_000], &text] {
                // The best levels take a while on so much.
                if level == 19 && plain.len() > 8 << 20 {
                    continue;
                }
                let levels = CodingLevels {
                    zstd: level,
                    ..USUAL
                };
                let coded = encode(ContentCoding::Zstd, &levels, plain, plain.len()).unwrap();
                let descriptor = coded[4];
                let size_bytes =
                    [u8::from(descriptor & 0x20 != 0), 2, 4, 8][usize::from(descriptor >> 6)];
                assert!(size_bytes > 0, "the size of the content is in the frame");
                if descriptor & 0x20 == 0 {
                    let window = coded[5];
                    let base = 1_u64 << (10 + (window >> 3));
                    let size = base + base / 8 * u64::from(window & 7);
                    assert!(size <= 8 << 20, "{level}: a window of {size}");
                } else {
                    assert!(plain.len() <= 8 << 20, "{level}: the whole is the window");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_gives_the_same(
            unit in prop::collection::vec(any::<u8>(), 1..40),
            times in 1..400_usize,
            level in 1..=9_u8,
        ) {
            let plain = unit.repeat(times);
            let levels = CodingLevels { gzip: level, brotli: level, zstd: level };
            for coding in CODINGS {
                if let Some(coded) = encode(coding, &levels, &plain, plain.len() + 64) {
                    let back = decode(coding, &coded, plain.len());
                    prop_assert_eq!(back.as_deref(), Ok(&plain[..]), "{:?}", coding);
                } else {
                    prop_assert!(false, "{:?} has no room", coding);
                }
            }
        }
    }
}
