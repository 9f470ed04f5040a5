//! `Accept-Language` (RFC 9110 §12.5.4): which of the languages that a site has suits a client.
//!
//! A range of the client matches an offered tag that equals it or begins with it and a hyphen
//! (basic filtering, RFC 4647 §3.3.1), and also a tag that is the beginning of the range (lookup,
//! §3.4): who asks for `de-CH` gets `de`.

use http::header::{ACCEPT_LANGUAGE, Entry};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use crate::list;

/// The most members of the field that are looked at; what follows is ignored.
const MOST_RANGES: usize = 32;

/// So many are read without an allocation.
const USUAL_RANGES: usize = 8;

/// The languages that a site has, in the order of preference.
#[derive(Debug)]
pub struct OfferedLanguages(Box<[OfferedLanguage]>);

#[derive(Debug)]
struct OfferedLanguage {
    tag: Box<str>,
    value: HeaderValue,
}

/// How well a range of the client matches a tag: the longer the common part, the better. A `*`
/// matches everything, and worse than any other range.
type MatchedLength = usize;

impl OfferedLanguages {
    /// Creates the list; tags that can't be in a header field are left out.
    pub fn new(tags: &[String]) -> Self {
        let offered = tags.iter().filter_map(|tag| {
            let value = tag.parse().ok()?;
            let tag = tag.as_str().into();
            Some(OfferedLanguage { tag, value })
        });
        Self(offered.collect())
    }

    /// Whether no language is offered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tags, in the order of preference.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|language| &*language.tag)
    }

    /// The language that suits best, by the weights of the client's ranges; among equals the one
    /// that the client, and then the site, names first. If none suits it is the first one.
    pub fn pick(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        self.pick_by(request.get_all(ACCEPT_LANGUAGE).into_iter())
    }

    /// Puts the language that suits best in place of what the client has sent.
    pub fn replace(&self, request: &mut HeaderMap) {
        match request.entry(ACCEPT_LANGUAGE) {
            Entry::Vacant(place) => {
                if let Some(first) = self.0.first() {
                    place.insert(first.value.clone());
                }
            }
            Entry::Occupied(mut lines) => {
                if let Some(picked) = self.pick_by(lines.iter()) {
                    lines.insert(picked.clone());
                }
            }
        }
    }

    fn pick_by<'a>(&self, lines: impl Iterator<Item = &'a HeaderValue>) -> Option<&HeaderValue> {
        let mut ranges = SmallVec::<[(&[u8], u16); USUAL_RANGES]>::new();
        let members = lines.flat_map(list::of_line).take(MOST_RANGES);
        ranges.extend(members.filter_map(range));
        let mut best: Option<(&OfferedLanguage, u16, usize)> = None;
        for language in &self.0 {
            let Some((weight, place)) = wish(&language.tag, &ranges) else {
                continue;
            };
            let is_better = best
                .is_none_or(|(_, most, first)| weight > most || (weight == most && place < first));
            if is_better && weight > 0 {
                best = Some((language, weight, place));
            }
        }
        let best = best.map(|(language, ..)| language);
        best.or(self.0.first()).map(|language| &language.value)
    }
}

/// The weight that the client gives to this tag, in thousandths, and the place of the range that
/// says it: of those that match, the one that matches the longest part. None: none matches.
fn wish(tag: &str, ranges: &[(&[u8], u16)]) -> Option<(u16, usize)> {
    let matching = ranges
        .iter()
        .enumerate()
        .filter_map(|(place, (range, weight))| {
            Some((matched(range, tag.as_bytes())?, *weight, place))
        });
    // The first of those that match equally well.
    let best = matching.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, weight, place)| (weight, place))
}

fn matched(range: &[u8], tag: &[u8]) -> Option<MatchedLength> {
    if range == b"*" {
        return Some(0);
    }
    let begins = |longer: &[u8], shorter: &[u8]| {
        let beginning = longer.get(..shorter.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(shorter))
            && longer.get(shorter.len()).is_none_or(|next| *next == b'-')
    };
    (begins(tag, range) || begins(range, tag)).then_some(range.len().min(tag.len()))
}

/// A member of the field: a range, and its weight in thousandths (RFC 9110 §12.4.2). None: it has
/// not the form of one.
fn range(member: &[u8]) -> Option<(&[u8], u16)> {
    let (range, weight) = match memchr::memchr(b';', member) {
        Some(at) => (member[..at].trim_ascii_end(), weight(&member[at + 1..])?),
        None => (member, 1000),
    };
    let is_tag = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    let is_range = range == b"*" || (!range.is_empty() && range.iter().all(is_tag));
    is_range.then_some((range, weight))
}

fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', rest @ ..] = parameter.trim_ascii_start() else {
        return None;
    };
    thousandths(rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii())
}

/// A weight as RFC 9110 §12.4.2 writes it: 0 or 1 with up to three digits behind the point.
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, fraction) = match weight {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(3);
    let fraction = digits.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    match whole {
        b'0' => Some(fraction),
        b'1' if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pick(offered: &[&str], asked: Option<&str>) -> String {
        let tags: Vec<String> = offered.iter().map(|tag| (*tag).to_owned()).collect();
        let headers = asked.map(|asked| (ACCEPT_LANGUAGE, asked.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        let languages = OfferedLanguages::new(&tags);
        languages
            .pick(&headers)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn the_best_language_is_picked_by_weight_and_then_by_order() {
        let site = ["de", "en", "fr"];
        for (asked, expected) in [
            (None, "de"),
            (Some(""), "de"),
            (Some("en"), "en"),
            (Some("EN-us,en;q=0.5"), "en"),
            (Some("fr-CA;q=0.3, en;q=0.8"), "en"),
            (Some("es, it"), "de"),
            (Some("fr, en"), "fr"),
            (Some("en;q=0.5, fr;q=0.5"), "en"),
            (Some("*"), "de"),
            (Some("de;q=0, *"), "en"),
            (Some("de;q=0, en;q=0, fr;q=0"), "de"),
            (Some("en;q=0, *;q=0.1"), "de"),
            (Some("fr;q=2, en;q=0.1"), "en"),
            (Some("fr;q=0.1234, en;q=0.1"), "en"),
            (Some("fr ; q=0.9 , en ; q=1.000"), "en"),
            (Some("defoo, fr;q=0.1"), "fr"),
            (Some("\u{e9}, fr"), "fr"),
        ] {
            assert_eq!(pick(&site, asked), expected, "{asked:?}");
        }
        assert_eq!(pick(&["en-GB", "en-US"], Some("en-us, en;q=0.9")), "en-US");
        assert_eq!(pick(&["en-GB", "en-US"], Some("en")), "en-GB");
        assert_eq!(pick(&["pt-BR", "pt"], Some("pt-PT, pt;q=0.9")), "pt");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_one_of_the_offered_is_picked_and_asking_for_it_changes_nothing(
            asked in "[ -~]{0,40}",
        ) {
            let site = ["de", "en-GB", "fr"];
            let picked = pick(&site, Some(&asked));
            prop_assert!(site.contains(&&*picked));
            prop_assert_eq!(pick(&site, Some(&picked)), picked);
        }
    }
}
