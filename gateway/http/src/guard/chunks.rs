//! A strict parser of the chunked coding (RFC 9112 §7.1), up to its trailers.
//!
//! Only `framing` uses it. It decodes nothing: it finds where the line of the last chunk ends, or
//! where the coding is broken. Data is skipped in one step, so only the lines between the data
//! cost a look at each byte.

/// The state between two reads.
#[derive(Clone, Copy)]
pub(super) enum ChunkParserState {
    /// In the size, which has `digits` digits so far.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the size; `length` bytes of the extension were read.
    Extension {
        size: u64,
        length: u16,
    },
    /// A CR was read.
    SizeEnd {
        size: u64,
    },
    /// This many bytes of data are still to come.
    Data {
        left: u64,
    },
    /// Behind the data.
    DataCr,
    DataLf,
}

/// How far the bytes led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChunkProgress {
    /// All bytes are taken, and the coding goes on.
    More,
    /// The line of the last chunk ends here; trailers follow.
    Last(usize),
    /// The coding is broken here.
    Broken(usize),
}

/// Digits of a size: 64 bits. No honest client sends more, not even zeros.
const DIGITS: u8 = 16;

/// The most bytes of an extension. We know no extension that has a meaning.
const EXTENSION: u16 = 1_024;

impl Default for ChunkParserState {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl ChunkParserState {
    pub(super) fn take(&mut self, bytes: &[u8]) -> ChunkProgress {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data { left } = self {
                at += skip(left, bytes.len() - at);
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            *self = match self.next(bytes[at]) {
                Some(Self::SizeEnd { size: 0 }) if bytes[at] == b'\n' => {
                    return ChunkProgress::Last(at + 1);
                }
                Some(next) => next,
                None => return ChunkProgress::Broken(at),
            };
            at += 1;
        }
        ChunkProgress::More
    }

    /// The state behind one byte outside of data; `None` if the byte is not allowed there.
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS => {
                let digit = char::from(byte).to_digit(16)?;
                Some(Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            }
            (Self::Size { digits: 0, .. }, _) => None,
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Some(Self::SizeEnd { size })
            }
            (Self::Size { size, .. }, b';' | b' ' | b'\t') => {
                Some(Self::Extension { size, length: 0 })
            }
            (Self::Extension { size, length }, b'\t' | 0x20..=0x7e | 0x80..)
                if length < EXTENSION =>
            {
                Some(Self::Extension {
                    size,
                    length: length + 1,
                })
            }
            // The caller notices that this was the last chunk.
            (Self::SizeEnd { size: 0 }, b'\n') => Some(self),
            (Self::SizeEnd { size }, b'\n') => Some(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Some(Self::DataLf),
            (Self::DataLf, b'\n') => Some(Self::default()),
            _ => None,
        }
    }
}

/// Reduces `left` by as many bytes as there are, `there` at most. Returns that number.
pub(super) fn skip(left: &mut u64, there: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
    *left -= taken as u64;
    taken
}
