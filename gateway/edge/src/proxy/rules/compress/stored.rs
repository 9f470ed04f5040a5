//! Which form of a stored body a client gets.

use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Method};

use super::config::HotLevels;
use super::{ClientCodings, ClientWish, CompressRules, VARIES_BY, forget_octets, is_left_alone};
use crate::cache::encodings::FormYardstick;
use crate::cache::entry::Entry;
use crate::http::coding::encode::CodingLevels;
use crate::http::coding::{AppliedCoding, ContentCoding, weaken_tag};
use crate::http::memory::stored::StoredBody;
use crate::http::vary;

/// A coded form of a stored body.
pub struct StoredForm<'a> {
    coding: ContentCoding,
    pub body: &'a StoredBody,
}

impl StoredForm<'_> {
    /// Changes the fields of the stored answer to those of this form.
    pub fn describe(&self, headers: &mut HeaderMap) {
        forget_octets(headers);
        headers.insert(CONTENT_ENCODING, self.coding.to_value());
    }
}

impl ClientCodings {
    /// The form of an entry's body that this client gets. None: the stored octets. A form that is
    /// missing is wished for.
    pub fn form<'e>(&self, entry: &'e Entry) -> Option<StoredForm<'e>> {
        let rules = &*self.rules;
        let may_change = self.transforming == ClientWish::Allowed
            && matches!(self.method, Method::GET | Method::HEAD)
            && !(self.asks_for_range && self.method == Method::GET);
        if !may_change || !self.accepted.takes_any() || !is_whole(entry) {
            return None;
        }
        let applied = AppliedCoding::of(&entry.headers);
        let against = self.against(applied)?;
        let is_small = applied == AppliedCoding::Identity && entry.body.len() < rules.min_bytes;
        if is_small || !rules.lists_type(&entry.headers) || is_left_alone(&entry.headers) {
            return None;
        }
        let base = match applied {
            AppliedCoding::One(coding) => Some(coding),
            AppliedCoding::Identity | AppliedCoding::Other => None,
        };
        let offered = rules.offered.iter().copied().chain(base);
        let mut wished = false;
        for coding in self.accepted.ranked(offered).as_slice() {
            if base == Some(*coding) {
                return None;
            }
            if let Some(body) = entry.form(*coding) {
                if let Some(hot) = rules.hot {
                    rules.want_better(entry, *coding, hot);
                }
                return Some(StoredForm {
                    coding: *coding,
                    body,
                });
            }
            if !std::mem::replace(&mut wished, true) {
                let encoder = &rules.encoder;
                wished = encoder.want(entry, *coding, rules.levels, against, rules.most);
            }
        }
        None
    }

    /// Gives a 304 the fields by which the answer with content would differ from the stored one.
    pub fn describe_unchanged(
        &self,
        stored: &HeaderMap,
        form: Option<&StoredForm<'_>>,
        unchanged: &mut HeaderMap,
    ) {
        if form.is_some() || !self.takes(stored) {
            weaken_tag(unchanged);
        }
        if self.rules.varies(stored, AppliedCoding::of(stored)) {
            vary::add(unchanged, VARIES_BY);
        }
    }

    /// Wishes for the form that this client would get of an entry which was just stored.
    pub fn prepare(&self, entry: &Entry) {
        let _ = self.form(entry);
    }

    /// What a form has to be better than. None: the stored octets are given as they are. An origin
    /// that chose br or zstd chose well.
    fn against(&self, applied: AppliedCoding) -> Option<FormYardstick> {
        match applied {
            AppliedCoding::Identity => Some(FormYardstick::Stored),
            AppliedCoding::One(coding) if !self.accepted.takes(coding) => {
                Some(FormYardstick::Decoded)
            }
            AppliedCoding::One(ContentCoding::Gzip) => Some(FormYardstick::Stored),
            AppliedCoding::One(_) | AppliedCoding::Other => None,
        }
    }
}

impl CompressRules {
    /// Counts an answer with a form, and lets the form be made once more when there were enough.
    fn want_better(&self, entry: &Entry, coding: ContentCoding, hot: HotLevels) {
        let level = match coding {
            ContentCoding::Gzip => hot.gzip,
            ContentCoding::Brotli => hot.br,
            ContentCoding::Zstd => hot.zstd,
        };
        if let Some(level) = level {
            let levels = CodingLevels::all(level);
            let after = hot.after_hits;
            self.encoder
                .want_better(entry, coding, levels, after, self.most);
        }
    }
}

/// Whether the body is the whole content of an answer that has one.
fn is_whole(entry: &Entry) -> bool {
    let has_none = [
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::NOT_MODIFIED,
        StatusCode::PARTIAL_CONTENT,
    ];
    entry.parts.is_none() && !entry.body.is_empty() && !has_none.contains(&entry.status)
}
