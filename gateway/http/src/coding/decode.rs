//! Undoes a coding, in steps whose output is bounded: what a few octets expand to is not known
//! before.
//!
//! Invariant: no input makes us produce more than [`MOST_RATIO`] times its length, once it has
//! produced [`ALWAYS_ALLOWED`]; no window is larger than 16 MiB.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

use super::ContentCoding;

/// A body that expands by more than this is taken for an attack.
pub const MOST_RATIO: u64 = 200;
/// Small bodies may expand by more.
const ALWAYS_ALLOWED: u64 = 64 << 10;
/// Octets of output of one step.
pub const DECODE_STEP: usize = 64 << 10;

/// Base-2 logarithms of the largest windows: gzip's only one, and zstd's that every reader must
/// support (RFC 9659).
const GZIP_WINDOW_BITS: u8 = 15;
const ZSTD_WINDOW_BITS: u32 = 23;

/// Undoes a coding.
pub struct BodyDecoder {
    codec: DecoderState,
    read: u64,
    written: u64,
    /// Whether what was read so far is a whole.
    is_whole: bool,
}

enum DecoderState {
    Gzip(Box<Decompress>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Box<raw::Decoder<'static>>),
}

/// What one step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeStep {
    pub read: usize,
    pub written: usize,
}

/// Why a body can't be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the coded content is damaged or cut short")]
    Damaged,
    #[error("the coded content expands to more than is allowed")]
    TooLarge,
}

impl BodyDecoder {
    pub fn new(coding: ContentCoding) -> Self {
        let codec = match coding {
            ContentCoding::Gzip => {
                DecoderState::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS)))
            }
            ContentCoding::Brotli => DecoderState::Brotli(Box::new(brotli_state())),
            ContentCoding::Zstd => DecoderState::Zstd(Box::new(zstd_state())),
        };
        Self {
            codec,
            read: 0,
            written: 0,
            is_whole: false,
        }
    }

    /// Whether what was read so far is a whole, so that the content may end here.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Decodes some of `input` into `output`. If nothing was written and all was read, it needs more
    /// input; if all of `output` was written, there may be more.
    ///
    /// # Errors
    /// When the input is damaged or expands too much.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep, DecodeError> {
        if self.is_whole && input.is_empty() {
            return Ok(DecodeStep {
                read: 0,
                written: 0,
            });
        }
        let step = match &mut self.codec {
            DecoderState::Gzip(inflate) => gzip(inflate, &mut self.is_whole, input, output),
            DecoderState::Brotli(state) => brotli(state, &mut self.is_whole, input, output),
            DecoderState::Zstd(state) => zstd(state, &mut self.is_whole, input, output),
        }?;
        self.read += step.read as u64;
        self.written += step.written as u64;
        if self.written > ALWAYS_ALLOWED && self.written / MOST_RATIO > self.read {
            return Err(DecodeError::TooLarge);
        }
        Ok(step)
    }
}

fn brotli_state() -> BrotliState<StandardAlloc, StandardAlloc, StandardAlloc> {
    let memory = StandardAlloc::default;
    // Strict: no window above the 16 MiB of RFC 7932.
    BrotliState::new_strict(memory(), memory(), memory())
}

#[allow(
    clippy::expect_used,
    reason = "it fails only where there is no memory for a context, which nothing survives"
)]
fn zstd_state() -> raw::Decoder<'static> {
    let mut decoder = raw::Decoder::new().expect("a context of zstd");
    let bounded = decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BITS));
    bounded.expect("a window that zstd allows");
    decoder
}

/// A gzip stream may have several members; what follows the last one and is none is ignored.
fn gzip(
    inflate: &mut Decompress,
    is_whole: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<DecodeStep, DecodeError> {
    if *is_whole {
        if input.first() != Some(&0x1f) {
            return Ok(DecodeStep {
                read: input.len(),
                written: 0,
            });
        }
        *inflate = Decompress::new_gzip(GZIP_WINDOW_BITS);
        *is_whole = false;
    }
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, output, FlushDecompress::None)
        .map_err(|_| DecodeError::Damaged)?;
    *is_whole = status == Status::StreamEnd;
    Ok(DecodeStep {
        read: (inflate.total_in() - read) as usize,
        written: (inflate.total_out() - written) as usize,
    })
}

fn brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_whole: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<DecodeStep, DecodeError> {
    if *is_whole {
        return Ok(DecodeStep {
            read: input.len(),
            written: 0,
        });
    }
    let (mut left, mut read) = (input.len(), 0);
    let (mut room, mut written, mut total) = (output.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut left,
        &mut read,
        input,
        &mut room,
        &mut written,
        output,
        &mut total,
        state,
    );
    *is_whole = matches!(result, BrotliResult::ResultSuccess);
    match result {
        BrotliResult::ResultFailure => Err(DecodeError::Damaged),
        _ => Ok(DecodeStep { read, written }),
    }
}

fn zstd(
    state: &mut raw::Decoder<'static>,
    is_whole: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<DecodeStep, DecodeError> {
    let mut from = InBuffer::around(input);
    let mut to = OutBuffer::around(output);
    let expected = state
        .run(&mut from, &mut to)
        .map_err(|_| DecodeError::Damaged)?;
    *is_whole = expected == 0;
    Ok(DecodeStep {
        read: from.pos(),
        written: to.pos(),
    })
}

/// The whole content, of at most `most` octets.
///
/// # Errors
/// When it is damaged, cut short, or expands to more.
pub fn decode(coding: ContentCoding, coded: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = BodyDecoder::new(coding);
    let mut out = Vec::with_capacity(coded.len().saturating_mul(4).min(most));
    let mut rest = coded;
    loop {
        let begins = out.len();
        // One octet more than allowed, so that a full output means that it is too large.
        let room = DECODE_STEP.min(most.saturating_add(1) - begins);
        out.resize(begins + room, 0);
        let step = decoder.step(rest, &mut out[begins..])?;
        out.truncate(begins + step.written);
        rest = &rest[step.read..];
        if out.len() > most {
            return Err(DecodeError::TooLarge);
        }
        if rest.is_empty() && step.written < room {
            return match decoder.is_whole() {
                true => Ok(out),
                false => Err(DecodeError::Damaged),
            };
        }
        if step.read == 0 && step.written == 0 {
            return Err(DecodeError::Damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CODINGS;
    use super::super::encode::{CodingLevels, encode};
    use super::*;
    use proptest::prelude::*;

    const USUAL: CodingLevels = CodingLevels {
        gzip: 6,
        brotli: 5,
        zstd: 3,
    };

    fn coded(coding: ContentCoding, plain: &[u8]) -> Vec<u8> {
        encode(coding, &USUAL, plain, plain.len() + 64).unwrap()
    }

    #[test]
    fn what_expands_too_much_is_refused_by_size_and_by_ratio() {
        let zeros = vec![0; 8 << 20];
        for coding in CODINGS {
            let bomb = coded(coding, &zeros);
            assert!(bomb.len() < zeros.len() / 200);
            assert_eq!(decode(coding, &bomb, 16 << 20), Err(DecodeError::TooLarge));
            let small = coded(coding, &zeros[..40_000]);
            assert_eq!(decode(coding, &small, 39_999), Err(DecodeError::TooLarge));
            assert_eq!(decode(coding, &small, 40_000).unwrap(), &zeros[..40_000]);
        }
    }

    #[test]
    fn what_is_cut_short_is_damaged() {
        let plain = b"some text that is repeated, some text that is repeated".repeat(50);
        for coding in CODINGS {
            let whole = coded(coding, &plain);
            for length in 0..whole.len() {
                let part = decode(coding, &whole[..length], 1 << 20);
                assert_eq!(part, Err(DecodeError::Damaged), "{coding:?} {length}");
            }
        }
    }

    #[test]
    fn a_gzip_stream_may_have_several_members() {
        let mut two = coded(ContentCoding::Gzip, b"one ");
        two.extend(coded(ContentCoding::Gzip, b"two"));
        assert_eq!(decode(ContentCoding::Gzip, &two, 100).unwrap(), b"one two");
        two.extend([0; 16]);
        assert_eq!(decode(ContentCoding::Gzip, &two, 100).unwrap(), b"one two");
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for coding in CODINGS {
                if let Ok(out) = decode(coding, &bytes, 100_000) {
                    prop_assert!(out.len() <= 100_000);
                }
            }
        }

        /// A decoder gives the same whatever pieces its input comes in.
        #[test]
        fn pieces_of_any_size_give_the_same(cut in 1..40_usize, room in 1..40_usize) {
            let plain = b"some text that is repeated, some text that is repeated".repeat(8);
            for coding in CODINGS {
                let mut decoder = BodyDecoder::new(coding);
                let (mut out, mut piece) = (Vec::new(), vec![0; room]);
                for mut input in coded(coding, &plain).chunks(cut) {
                    loop {
                        let step = decoder.step(input, &mut piece).unwrap();
                        out.extend_from_slice(&piece[..step.written]);
                        input = &input[step.read..];
                        if input.is_empty() && step.written < room {
                            break;
                        }
                    }
                }
                prop_assert!(decoder.is_whole());
                prop_assert_eq!(&out, &plain);
            }
        }
    }
}
