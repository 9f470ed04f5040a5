//! The coded forms of a stored body, made behind the answers that wanted them ([`crate::encoder`]).
//!
//! They belong to the octets of the body: an entry that a 304 renews has the same ones. They never
//! leave the process: the second tier and peers get the body alone.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use crate::http::coding::{CODINGS, ContentCoding};
use crate::http::memory::stored::StoredBody;

/// The coded forms of one body.
#[derive(Debug, Default)]
pub struct EncodedForms {
    forms: [FormPlace; CODINGS.len()],
}

#[derive(Debug, Default)]
struct FormPlace {
    body: OnceLock<StoredBody>,
    state: AtomicU8,
    /// The form once more, smaller. Answers that have the first one under way keep it.
    better: OnceLock<StoredBody>,
    /// Answers with the form, until it is decided whether it is made once more.
    given: AtomicU32,
}

/// What a coded form is compared with: it is kept if it saves something against what its clients
/// would get without it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FormYardstick {
    /// The stored octets, which these clients take.
    Stored = 1,
    /// The content without a coding, since they do not take the stored one.
    Decoded = 2,
}

/// Nobody has asked for it, or its job was given up.
const UNTRIED: u8 = 0;
/// It is being made.
const BEING_MADE: u8 = 64;
/// What was compared with a yardstick and saved too little has that yardstick as its state. What
/// can't be made at all has this one.
const IMPOSSIBLE: u8 = 3;

impl EncodedForms {
    /// The form with this coding, if it is there.
    pub fn get(&self, coding: ContentCoding) -> Option<&StoredBody> {
        let place = &self.forms[coding.index()];
        place
            .body
            .get()
            .map(|first| place.better.get().unwrap_or(first))
    }

    /// Counts an answer with this form. True for one caller: with it there were so many.
    pub(super) fn is_hot(&self, coding: ContentCoding, after: u32) -> bool {
        let given = &self.forms[coding.index()].given;
        // Once it is hot, nobody writes to it any more.
        given.load(Relaxed) < after && given.fetch_add(1, Relaxed) + 1 == after
    }

    /// Forgets the answers with this form: the work was not done.
    pub(super) fn cool_down(&self, coding: ContentCoding) {
        self.forms[coding.index()].given.store(0, Relaxed);
    }

    pub(super) fn set_better(&self, coding: ContentCoding, body: StoredBody) {
        // Set once, by whoever was told that it is hot.
        let _ = self.forms[coding.index()].better.set(body);
    }

    /// Claims the work of making a form. False: it is there, under way, or not worth it.
    pub(super) fn claim(&self, coding: ContentCoding, against: FormYardstick) -> bool {
        let place = &self.forms[coding.index()];
        let claim = |state| (state < against as u8).then_some(BEING_MADE);
        place.body.get().is_none() && place.state.fetch_update(Relaxed, Relaxed, claim).is_ok()
    }

    /// Whether [`claim`](Self::claim) could succeed: one look for the answers that need no work.
    pub(super) fn is_open(&self, coding: ContentCoding, against: FormYardstick) -> bool {
        let place = &self.forms[coding.index()];
        place.body.get().is_none() && place.state.load(Relaxed) < against as u8
    }

    /// Whether the form is being made.
    pub(super) fn is_being_made(&self, coding: ContentCoding) -> bool {
        self.forms[coding.index()].state.load(Relaxed) == BEING_MADE
    }

    /// Gives a claim back: the work was not done.
    pub(super) fn give_up(&self, coding: ContentCoding) {
        self.forms[coding.index()].state.store(UNTRIED, Relaxed);
    }

    /// Notes that the form saves too little against this.
    pub(super) fn saves_too_little(&self, coding: ContentCoding, against: FormYardstick) {
        self.forms[coding.index()]
            .state
            .store(against as u8, Relaxed);
    }

    /// Notes that no form can be made of this body.
    pub(super) fn is_impossible(&self, coding: ContentCoding) {
        self.forms[coding.index()].state.store(IMPOSSIBLE, Relaxed);
    }

    pub(super) fn set(&self, coding: ContentCoding, body: StoredBody) {
        // Set once, by whoever holds the claim.
        let _ = self.forms[coding.index()].body.set(body);
    }

    /// Bytes that the forms take.
    pub fn size(&self) -> usize {
        let places = self.forms.iter();
        let held = places.flat_map(|place| [place.body.get(), place.better.get()]);
        let held: usize = held
            .flatten()
            .map(|body| body.len() + body.overhead())
            .sum();
        held + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::coding::ContentCoding::{Brotli, Gzip};
    use bytes::Bytes;

    #[test]
    fn a_form_is_made_once_and_tried_again_only_against_a_better_yardstick() {
        let forms = EncodedForms::default();
        assert!(forms.claim(Brotli, FormYardstick::Stored));
        assert!(!forms.claim(Brotli, FormYardstick::Decoded), "under way");
        assert!(forms.claim(Gzip, FormYardstick::Stored), "another coding");
        forms.give_up(Brotli);
        assert!(forms.claim(Brotli, FormYardstick::Stored));
        forms.saves_too_little(Brotli, FormYardstick::Stored);
        assert!(!forms.claim(Brotli, FormYardstick::Stored));
        assert!(forms.claim(Brotli, FormYardstick::Decoded));
        forms.saves_too_little(Brotli, FormYardstick::Decoded);
        assert!(!forms.claim(Brotli, FormYardstick::Decoded));
        let before = forms.size();
        forms.set(Gzip, StoredBody::new(Bytes::from_static(b"coded")));
        assert_eq!(forms.size(), before + 5);
        let hot = (0..9).filter(|_| forms.is_hot(Gzip, 3)).count();
        assert_eq!(hot, 1, "one caller makes it once more");
        forms.cool_down(Gzip);
        assert_eq!((0..9).filter(|_| forms.is_hot(Gzip, 3)).count(), 1);
        forms.set_better(Gzip, StoredBody::new(Bytes::from_static(b"less")));
        assert_eq!(forms.get(Gzip).map(|body| &body[..]), Some(&b"less"[..]));
        assert_eq!(forms.size(), before + 9, "the first one is still there");
        assert!(!forms.is_open(Gzip, FormYardstick::Decoded));
    }
}
