//! Cache directives of a request (RFC 9111 §5.2.1): the client's wishes, which a route may obey.
//!
//! They are only advice, so an argument that cannot be parsed is ignored; of two that differ the
//! stricter one applies.

use http::{HeaderMap, header};

use super::directive::{self, Argument};
use crate::list;

/// What a client asks of caches. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub no_transform: bool,
    pub max_age: Option<u32>,
    pub min_fresh: Option<u32>,
    pub max_stale: Option<MaxStale>,
    pub stale_if_error: Option<u32>,
}

/// How stale a response the client accepts; ordered from strict to lax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MaxStale {
    /// At most this many seconds past its lifetime.
    Seconds(u32),
    /// Any staleness.
    Any,
}

impl RequestDirectives {
    /// Parses `Cache-Control` of a request; without it, `Pragma: no-cache` (RFC 9111 §5.4).
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            directives.no_cache = list::field(headers, &header::PRAGMA)
                .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            directive::each(line.as_bytes(), |name, argument| {
                directives.apply(name, argument)
            });
        }
        directives
    }

    fn apply(&mut self, name: &str, argument: &Argument<'_>) {
        match name {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "no-transform" => self.no_transform = true,
            "max-age" => keep(&mut self.max_age, argument.seconds(), u32::min),
            "min-fresh" => keep(&mut self.min_fresh, argument.seconds(), u32::max),
            "stale-if-error" => keep(&mut self.stale_if_error, argument.seconds(), u32::min),
            "max-stale" if argument.is_none() => {
                keep(&mut self.max_stale, Some(MaxStale::Any), MaxStale::min)
            }
            "max-stale" => keep(
                &mut self.max_stale,
                argument.seconds().map(MaxStale::Seconds),
                MaxStale::min,
            ),
            _ => {}
        }
    }
}

fn keep<T: Copy>(slot: &mut Option<T>, value: Option<T>, stricter: fn(T, T) -> T) {
    *slot = match (*slot, value) {
        (Some(before), Some(value)) => Some(stricter(before, value)),
        (before, value) => before.or(value),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn parse(fields: &[(HeaderName, &'static str)]) -> RequestDirectives {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        RequestDirectives::parse(&fields.collect())
    }

    #[test]
    fn wishes_are_read() {
        let wishes = parse(&[(
            header::CACHE_CONTROL,
            "No-Cache, no-store, only-if-cached, no-transform, max-age=1, min-fresh=\"2\", stale-if-error=3",
        )]);
        let expected = RequestDirectives {
            no_cache: true,
            no_store: true,
            only_if_cached: true,
            no_transform: true,
            max_age: Some(1),
            min_fresh: Some(2),
            max_stale: None,
            stale_if_error: Some(3),
        };
        assert_eq!(wishes, expected);
    }

    #[test]
    fn max_stale_without_a_number_accepts_any_age_and_the_stricter_holds() {
        for (line, max_stale) in [
            ("max-stale", Some(MaxStale::Any)),
            ("max-stale=5", Some(MaxStale::Seconds(5))),
            (
                "max-stale, max-stale=5, max-stale=9",
                Some(MaxStale::Seconds(5)),
            ),
            ("max-stale=soon", None),
        ] {
            assert_eq!(
                parse(&[(header::CACHE_CONTROL, line)]).max_stale,
                max_stale,
                "{line}: RFC 9111 §5.2.1.2"
            );
        }
    }

    #[test]
    fn advice_that_cannot_be_read_is_ignored() {
        assert_eq!(
            parse(&[(header::CACHE_CONTROL, "max-age=x, min-fresh, foo=bar")]),
            RequestDirectives::default()
        );
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(parse(&[(header::PRAGMA, "foo, NO-CACHE")]).no_cache);
        assert!(
            !parse(&[
                (header::PRAGMA, "no-cache"),
                (header::CACHE_CONTROL, "max-age=9")
            ])
            .no_cache
        );
        assert!(!parse(&[(header::PRAGMA, "no-cachet")]).no_cache);
    }
}
