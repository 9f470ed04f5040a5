//! Pieces of a body that are kept, and what a small piece costs.
//!
//! A piece is a part of the buffer that it was read into, and keeps all of that in memory: 8 KiB
//! and more, even for a single byte. So a small piece is copied where more are to come
//! ([`detached`]), and where pieces are kept, small ones are put together ([`KeptPieces`]): what
//! is kept costs about as much as it is long, however its sender cuts it up.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece below this size is copied. A larger one is kept with its buffer, which is at most about
/// twice as large.
const SMALL: usize = 4 << 10;

/// So many bytes of small pieces are put together.
const TOGETHER: usize = 16 << 10;

/// The same bytes, which keep no buffer that is much larger than they are.
pub(super) fn detached(piece: Bytes) -> Bytes {
    match piece.len() < SMALL {
        true => Bytes::copy_from_slice(&piece),
        false => piece,
    }
}

/// Pieces that are read from their beginning, once or more often.
#[derive(Default)]
pub struct KeptPieces {
    /// How many were dropped from the front.
    dropped: usize,
    whole: VecDeque<Bytes>,
    /// Small ones that came last, to which further ones are added.
    tail: Vec<u8>,
}

/// How far a reader of [`KeptPieces`] has come; by default it is at their beginning.
#[derive(Clone, Copy, Default, Debug)]
pub struct PiecePlace {
    number: usize,
    /// Bytes of that piece which it has read: those that the tail had at that time.
    read: usize,
}

impl KeptPieces {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            if self.tail.len() + piece.len() > TOGETHER {
                self.end_tail();
            }
            match self.tail.is_empty() {
                // Often it is all of the body.
                true => self.tail = piece.to_vec(),
                false => self.tail.extend_from_slice(&piece),
            }
        } else {
            self.end_tail();
            self.whole.push_back(piece);
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.tail.shrink_to_fit();
            self.whole
                .push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    /// What comes next for a reader, who has read all that was dropped. None: there is no more.
    pub fn next(&self, place: &mut PiecePlace) -> Option<Bytes> {
        if place.number < self.dropped {
            *place = PiecePlace {
                number: self.dropped,
                read: 0,
            };
        }
        while let Some(piece) = self.whole.get(place.number - self.dropped) {
            let rest = piece.slice(place.read..);
            *place = PiecePlace {
                number: place.number + 1,
                read: 0,
            };
            if !rest.is_empty() {
                return Some(rest);
            }
        }
        let rest = self.tail.get(place.read..)?;
        place.read = self.tail.len();
        (!rest.is_empty()).then(|| Bytes::copy_from_slice(rest))
    }

    /// Sets a reader behind all that is there.
    pub fn skip_to_end(&self, place: &mut PiecePlace) {
        *place = PiecePlace {
            number: self.dropped + self.whole.len(),
            read: self.tail.len(),
        };
    }

    /// Drops the first piece if `passed` says so of its length, which is returned. Small ones that
    /// came last stay.
    pub fn drop_first_if(&mut self, passed: impl FnOnce(usize) -> bool) -> Option<usize> {
        let first = self.whole.pop_front_if(|piece| passed(piece.len()))?;
        self.dropped += 1;
        Some(first.len())
    }

    /// Whether the first piece was dropped.
    pub fn has_lost_its_beginning(&self) -> bool {
        self.dropped > 0
    }

    /// All of it, in one buffer of the exact size. Nothing is left.
    pub fn join(&mut self) -> Bytes {
        if self.whole.is_empty() {
            self.tail.shrink_to_fit();
            return Bytes::from(std::mem::take(&mut self.tail));
        }
        self.end_tail();
        let mut all = BytesMut::with_capacity(self.whole.iter().map(Bytes::len).sum());
        for piece in self.whole.drain(..) {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }

    /// Pieces that are held, small ones that were put together counting as one.
    pub fn count(&self) -> usize {
        self.whole.len() + usize::from(!self.tail.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bytes, KeptPieces, PiecePlace, SMALL, TOGETHER, detached};

    fn piece(size: usize) -> Bytes {
        Bytes::from(vec![b'x'; size])
    }

    #[test]
    fn a_small_piece_lets_go_of_the_buffer_that_it_was_read_into() {
        let buffer = piece(2 * SMALL);
        let inside = |piece: &Bytes| buffer.as_ptr_range().contains(&piece.as_ptr());
        assert!(!inside(&detached(buffer.slice(..SMALL - 1))));
        assert!(inside(&detached(buffer.slice(..SMALL))));
        let mut kept = KeptPieces::default();
        kept.push(buffer.slice(..1));
        assert!(!inside(&kept.next(&mut PiecePlace::default()).unwrap()));
    }

    #[test]
    fn small_pieces_are_put_together_and_large_ones_are_left_as_they_are() {
        let mut kept = KeptPieces::default();
        for _ in 0..4 * TOGETHER {
            kept.push(piece(1));
        }
        assert_eq!(kept.count(), 4);
        let large = piece(SMALL);
        kept.push(large.clone());
        kept.push(piece(1));
        assert_eq!(kept.count(), 6);
        let mut place = PiecePlace::default();
        let read: Vec<_> = std::iter::from_fn(|| kept.next(&mut place)).collect();
        assert_eq!(read[4].as_ptr(), large.as_ptr());
        assert_eq!(kept.join().len(), 4 * TOGETHER + SMALL + 1);
        assert_eq!(kept.count(), 0);
    }

    proptest! {
        /// However it comes, is read and dropped, a reader gets each byte once and in order.
        #[test]
        fn readers_get_every_byte(
            sizes in prop::collection::vec((0..2 * SMALL, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let mut kept = KeptPieces::default();
            let (mut place, mut read, mut all) = (PiecePlace::default(), Vec::new(), Vec::new());
            let mut dropped = 0;
            for (size, reads, drops) in sizes {
                let bytes: Vec<u8> = (0..size).map(|at| (all.len() + at) as u8).collect();
                all.extend_from_slice(&bytes);
                kept.push(Bytes::from(bytes));
                while reads && let Some(next) = kept.next(&mut place) {
                    read.extend_from_slice(&next);
                }
                while drops
                    && let Some(length) = kept.drop_first_if(|length| dropped + length <= read.len())
                {
                    dropped += length;
                }
            }
            while let Some(next) = kept.next(&mut place) {
                read.extend_from_slice(&next);
            }
            prop_assert_eq!(&read, &all);
            prop_assert_eq!(&kept.join()[..], &all[dropped..]);
        }
    }
}
