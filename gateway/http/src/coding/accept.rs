//! `Accept-Encoding` (RFC 9110 §12.5.3): which codings a client takes, and how gladly.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::{CODINGS, ContentCoding};
use crate::list;

/// How gladly a client takes each coding, in thousandths; 0 means not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AcceptedCodings {
    qualities: [u16; CODINGS.len()],
    /// The quality that the client gives to content without a coding. None: it says nothing of it,
    /// so that it is acceptable and any coding is preferred.
    identity: Option<u16>,
}

impl AcceptedCodings {
    /// What a request says. Nothing, or an empty field, means that only content without a coding is
    /// wanted.
    pub fn of(request: &HeaderMap) -> Self {
        Self::of_lines(request.get_all(ACCEPT_ENCODING))
    }

    /// What the lines of the field say.
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut named = [None; CODINGS.len()];
        let (mut identity, mut others) = (None, None);
        for member in lines.into_iter().flat_map(list::of_line) {
            let (name, quality) = weighted(member);
            let place = match name {
                b"*" => &mut others,
                _ if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                _ => match ContentCoding::named(name) {
                    Some(coding) => &mut named[coding.index()],
                    None => continue,
                },
            };
            // Named twice: refused if one of them refuses it, or else as gladly as either says.
            *place = Some(match *place {
                Some(0) => 0,
                Some(_) if quality == 0 => 0,
                Some(before) => quality.max(before),
                None => quality,
            });
        }
        Self {
            qualities: named.map(|quality| quality.or(others).unwrap_or(0)),
            identity: match (identity, others) {
                (None, Some(0)) => Some(0),
                (identity, _) => identity,
            },
        }
    }

    /// Whether the client takes this coding.
    pub fn takes(&self, coding: ContentCoding) -> bool {
        self.quality(coding) > 0
    }

    /// Whether the client takes any coding.
    pub fn takes_any(&self) -> bool {
        self.qualities.iter().any(|quality| *quality > 0)
    }

    fn quality(&self, coding: ContentCoding) -> u16 {
        self.qualities[coding.index()]
    }

    /// Whether the client would rather have this coding than none. On equal terms it would.
    fn prefers(&self, coding: ContentCoding) -> bool {
        let quality = self.quality(coding);
        quality > 0 && quality >= self.identity.unwrap_or(0)
    }

    /// Those of `offered` that the client would rather have than content without a coding: the best
    /// first, in the order of `offered` where it likes them equally.
    pub fn ranked(&self, offered: impl IntoIterator<Item = ContentCoding>) -> RankedCodings {
        let mut ranked = RankedCodings::default();
        for coding in offered {
            if self.prefers(coding) && !ranked.as_slice().contains(&coding) {
                let better = |held: &&ContentCoding| self.quality(**held) >= self.quality(coding);
                let at = ranked.as_slice().iter().take_while(better).count();
                ranked.insert(at, coding);
            }
        }
        ranked
    }
}

/// Codings in their order, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct RankedCodings {
    places: [ContentCoding; CODINGS.len()],
    length: usize,
}

impl Default for RankedCodings {
    fn default() -> Self {
        Self {
            places: CODINGS,
            length: 0,
        }
    }
}

impl RankedCodings {
    pub fn as_slice(&self) -> &[ContentCoding] {
        &self.places[..self.length]
    }

    /// Puts one of the codings that is not there yet before the one at `at`.
    fn insert(&mut self, at: usize, coding: ContentCoding) {
        self.places.copy_within(at..self.length, at + 1);
        self.places[at] = coding;
        self.length += 1;
    }
}

/// A member's name and its weight in thousandths. What is no weight counts as none, so as 1.
fn weighted(member: &[u8]) -> (&[u8], u16) {
    let mut parts = member.split(|octet| *octet == b';').map(list::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| match part {
        [b'q' | b'Q', rest @ ..] => list::trim(rest).strip_prefix(b"=").map(list::trim),
        _ => None,
    });
    (name, weight.and_then(thousandths).unwrap_or(1000))
}

/// A `qvalue` (RFC 9110 §12.4.2): 0 to 1 with at most three digits.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0');
    for at in 0..3 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u16::from(digit - b'0');
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::ContentCoding::{Brotli, Gzip, Zstd};
    use super::*;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> AcceptedCodings {
        let line = |line: &&str| (ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        AcceptedCodings::of(&lines.iter().map(line).collect())
    }

    fn ranked(lines: &[&str]) -> Vec<ContentCoding> {
        of(lines).ranked([Brotli, Zstd, Gzip]).as_slice().to_vec()
    }

    #[test]
    fn the_table_of_what_clients_take() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["identity"], &[]),
            (&["gzip"], &[Gzip]),
            (&["x-gzip"], &[Gzip]),
            (&["GZIP"], &[Gzip]),
            (&["gzip, deflate, br, zstd"], &[Brotli, Zstd, Gzip]),
            (&["gzip", "br"], &[Brotli, Gzip]),
            (&["gzip;q=1.0, br;q=0.5"], &[Gzip, Brotli]),
            (&["br;q=0.001, gzip;q=0.002"], &[Gzip, Brotli]),
            (&["gzip;q=0"], &[]),
            (&["gzip;q=0.000, br"], &[Brotli]),
            (&["*"], &[Brotli, Zstd, Gzip]),
            (&["*;q=0"], &[]),
            (&["*;q=0, gzip"], &[Gzip]),
            (&["gzip;q=0, *"], &[Brotli, Zstd]),
            (&["gzip;q=0.5, *;q=0.1"], &[Gzip, Brotli, Zstd]),
            (&["identity;q=0, gzip"], &[Gzip]),
            (&["identity;q=0"], &[]),
            (&["identity, gzip;q=0.5"], &[]),
            (&["identity;q=0.5, gzip;q=0.5"], &[Gzip]),
            (&["identity;q=0.5, gzip;q=0.4, br;q=0.6"], &[Brotli]),
            (&["gzip ; q=0.5 , br ; q = 0.4"], &[Gzip, Brotli]),
            (&["gzip;Q=0"], &[]),
            // A weight that is none does not count.
            (&["gzip;q=2"], &[Gzip]),
            (&["gzip;q=-1"], &[Gzip]),
            (&["gzip;q=0.0001"], &[Gzip]),
            (&["gzip;q="], &[Gzip]),
            (&["gzip;level=9;q=0"], &[]),
            (&["gzip, gzip;q=0"], &[]),
            (&["deflate, compress, bzip2"], &[]),
            (&[",, gzip ,"], &[Gzip]),
        ] {
            assert_eq!(ranked(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn identity_is_refused_by_itself_or_by_all() {
        assert_eq!(of(&["identity;q=0"]).identity, Some(0));
        assert_eq!(of(&["*;q=0"]).identity, Some(0));
        assert_eq!(of(&["*;q=0, identity"]).identity, Some(1000));
        assert_eq!(of(&["gzip"]).identity, None);
    }

    /// What a client says of one coding.
    fn said() -> impl Strategy<Value = (&'static str, u16)> {
        const NAMES: [&str; 6] = ["gzip", "br", "zstd", "identity", "*", "deflate"];
        (prop::sample::select(&NAMES[..]), 0..=1000_u16)
    }

    proptest! {
        /// The definition of RFC 9110 §12.5.3, written once more and plainly.
        #[test]
        fn ranking_follows_the_rfc(said in prop::collection::vec(said(), 0..6)) {
            let mut kept: Vec<(&str, u16)> = Vec::new();
            for (name, quality) in said {
                if !kept.iter().any(|(held, _)| *held == name) {
                    kept.push((name, quality));
                }
            }
            let text: Vec<_> = kept
                .iter()
                .map(|(name, q)| format!("{name};q={}.{:03}", q / 1000, q % 1000))
                .collect();
            let explicit = |name: &str| kept.iter().find(|(held, _)| *held == name).map(|(_, q)| *q);
            let quality = |coding: ContentCoding| {
                explicit(coding.as_str()).or_else(|| explicit("*")).unwrap_or(0)
            };
            let identity = explicit("identity").unwrap_or(0);
            let accepted = of(&[&text.join(", ")]);
            let ranked = accepted.ranked([Brotli, Zstd, Gzip]);
            for coding in CODINGS {
                prop_assert_eq!(accepted.takes(coding), quality(coding) > 0);
                let wanted = quality(coding) > 0 && quality(coding) >= identity;
                prop_assert_eq!(ranked.as_slice().contains(&coding), wanted);
            }
            let place = |coding| [Brotli, Zstd, Gzip].iter().position(|c| *c == coding);
            for pair in ranked.as_slice().windows(2) {
                let (first, second) = (quality(pair[0]), quality(pair[1]));
                prop_assert!(first > second || first == second && place(pair[0]) < place(pair[1]));
            }
        }

        #[test]
        fn any_bytes_are_read(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let accepted = AcceptedCodings::of(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]));
                let ranked = accepted.ranked(CODINGS);
                prop_assert!(ranked.as_slice().iter().all(|coding| accepted.takes(*coding)));
            }
        }
    }
}
