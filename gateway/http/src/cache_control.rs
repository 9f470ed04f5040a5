//! What a response, a request, or a targeted field says about caching (RFC 9111 §5.2, RFC 9213).
//!
//! Directives are case-insensitive, their arguments are tokens or quoted strings, and they may be
//! spread over any number of lines; unknown directives are ignored. Where the RFC leaves a choice
//! we take the careful one: an argument that is not a number, or a second one that differs from
//! the first, makes the lifetime `Some(0)` (§4.2.1 encourages caches to treat such a response as
//! stale); a field list that cannot be parsed counts as the whole response. A restricting
//! directive holds even with an argument that it should not have. [`directive`] parses the
//! syntax, [`request`] and [`targeted`] the other sources.

use http::{HeaderMap, HeaderName, HeaderValue, header};

mod directive;
mod request;
mod targeted;

pub use request::{MaxStale, RequestDirectives};
pub use targeted::targeted;

pub use directive::delta_seconds;

use directive::Argument;

use crate::list;

/// The largest number of seconds in a directive; larger numbers mean this one (RFC 9111 §1.2.2).
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// Whether a message must not be transformed on its way (RFC 9111 §5.2.1.6, §5.2.2.6). One look at
/// `Cache-Control` alone: nothing else can say it.
pub fn forbids_transforming(headers: &HeaderMap) -> bool {
    list::field(headers, &header::CACHE_CONTROL)
        .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Whether a field tells caches, or certain ones, for how long a response may be stored, or that it
/// may not.
pub fn tells_lifetime(name: &HeaderName) -> bool {
    let name = name.as_str();
    let known = [
        "cache-control",
        "expires",
        "pragma",
        "surrogate-control",
        "x-accel-expires",
    ];
    name.ends_with("-cache-control") || known.contains(&name)
}

/// Removes all fields by which a response tells caches for how long it may be stored.
pub fn remove_lifetimes(headers: &mut HeaderMap) {
    let told: Vec<_> = headers
        .keys()
        .filter(|name| tells_lifetime(name))
        .cloned()
        .collect();
    for name in told {
        headers.remove(name);
    }
}

/// Says that no cache may store a response, whatever it has said so far.
pub fn forbid_storing(headers: &mut HeaderMap) {
    remove_lifetimes(headers);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
}

/// Says that a response is for one client alone, to every cache behind this one: what addresses
/// certain caches, or gives a lifetime, is taken out.
pub fn make_private(headers: &mut HeaderMap) {
    let own = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .cloned()
        .collect::<Vec<_>>();
    remove_lifetimes(headers);
    for line in own {
        headers.append(header::CACHE_CONTROL, line);
    }
    if !ResponseDirectives::parse(headers).no_store {
        let own = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, own);
    }
}

/// Cache directives of a response (RFC 9111 §5.2.2, RFC 5861, RFC 8246). Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub max_age: Option<u32>,
    pub s_maxage: Option<u32>,
    /// The response must not be used without revalidation; the field form names headers only.
    pub no_cache: FieldForm,
    /// The response is not for a shared cache; the field form names headers only.
    pub private: FieldForm,
    pub no_store: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub immutable: bool,
    pub no_transform: bool,
    pub stale_while_revalidate: Option<u32>,
    pub stale_if_error: Option<u32>,
    /// The directives come from a field for our class of caches, so `Expires` is ignored, too
    /// (RFC 9213 §2.2).
    pub targeted: bool,
}

/// `no-cache` and `private` apply to the whole response, or to some of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FieldForm {
    #[default]
    Absent,
    Whole,
    /// These fields must not be stored (`private`) or reused unvalidated (`no-cache`).
    Fields(Vec<HeaderName>),
}

impl ResponseDirectives {
    /// The directives that apply to a cache which listens to `targets`: those of the first of these
    /// fields that is valid, else of `Cache-Control` (RFC 9213 §2.2).
    pub fn governing(headers: &HeaderMap, targets: &[HeaderName]) -> Self {
        targeted(headers, targets).unwrap_or_else(|| Self::parse(headers))
    }

    /// Parses `Cache-Control` of a response. Absent and unreadable directives keep their default.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            directive::each(line.as_bytes(), |name, argument| {
                directives.apply(name, argument)
            });
        }
        directives
    }

    fn apply(&mut self, name: &str, argument: &Argument<'_>) {
        match name {
            "max-age" => merge_seconds(&mut self.max_age, argument),
            "s-maxage" => merge_seconds(&mut self.s_maxage, argument),
            "stale-while-revalidate" => merge_seconds(&mut self.stale_while_revalidate, argument),
            "stale-if-error" => merge_seconds(&mut self.stale_if_error, argument),
            "no-cache" => self.no_cache.merge(argument),
            "private" => self.private.merge(argument),
            "no-store" => self.no_store = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "no-transform" => self.no_transform = true,
            // These directives allow something, so they must be spelled as the RFC spells them.
            "public" => self.public |= argument.is_none(),
            "immutable" => self.immutable |= argument.is_none(),
            "must-understand" => self.must_understand |= argument.is_none(),
            _ => {}
        }
    }
}

impl FieldForm {
    /// True unless the directive is absent.
    pub fn is_present(&self) -> bool {
        *self != Self::Absent
    }

    /// Keeps the wider of the present form and that of `argument`.
    fn merge(&mut self, argument: &Argument<'_>) {
        let named = argument.field_names();
        *self = match (std::mem::take(self), named) {
            (Self::Whole, _) | (_, None) => Self::Whole,
            (Self::Absent, Some(names)) => Self::Fields(names),
            (Self::Fields(mut names), Some(more)) => {
                names.extend(more);
                names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
                names.dedup();
                Self::Fields(names)
            }
        };
    }
}

/// A second value is accepted only if it is equal; anything invalid means 0 from then on.
fn merge_seconds(slot: &mut Option<u32>, argument: &Argument<'_>) {
    let value = argument.seconds().unwrap_or(0);
    *slot = match *slot {
        Some(before) if before != value => Some(0),
        _ => Some(value),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn parse(lines: &[&str]) -> ResponseDirectives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        ResponseDirectives::parse(&headers)
    }

    fn names(list: &[&'static str]) -> FieldForm {
        FieldForm::Fields(
            list.iter()
                .map(|name| HeaderName::from_static(name))
                .collect(),
        )
    }

    #[test]
    fn what_is_for_one_client_says_so_to_every_cache() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("cache-control", "public, s-maxage=3600"),
            ("cdn-cache-control", "max-age=3600"),
            ("cloudflare-cdn-cache-control", "max-age=3600"),
            ("surrogate-control", "max-age=3600"),
            ("x-accel-expires", "3600"),
            ("expires", "Sun, 06 Nov 2044 08:49:37 GMT"),
            ("etag", "\"1\""),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        make_private(&mut headers);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers[header::CACHE_CONTROL], "private, no-cache");
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, max-age=0"),
        );
        make_private(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "no-store, max-age=0");
    }

    #[test]
    fn seconds_are_read_as_rfc_9111_says() {
        for (line, max_age, section) in [
            ("", None, "5.2"),
            ("max-age=60", Some(60), "5.2.2.1"),
            ("MaX-aGe=60", Some(60), "5.2: case-insensitive"),
            ("max-age=\"60\"", Some(60), "5.2: quoted form accepted"),
            ("max-age=0060", Some(60), "1.2.2: 1*DIGIT"),
            ("max-age=2147483648", Some(MAX_DELTA_SECONDS), "1.2.2"),
            (
                "max-age=3000000000",
                Some(MAX_DELTA_SECONDS),
                "1.2.2: saturates",
            ),
            (
                "max-age=99999999999999999999999",
                Some(MAX_DELTA_SECONDS),
                "1.2.2: saturates",
            ),
            ("max-age=60, max-age=60", Some(60), "4.2.1: the same twice"),
            (
                "max-age=60, max-age=10",
                Some(0),
                "4.2.1: differing are stale",
            ),
            ("max-age=60, max-age=oops, max-age=60", Some(0), "4.2.1"),
            ("max-age", Some(0), "4.2.1"),
            ("max-age=", Some(0), "4.2.1"),
            ("max-age=-1", Some(0), "4.2.1"),
            ("max-age=+1", Some(0), "4.2.1"),
            ("max-age=60.0", Some(0), "4.2.1"),
            ("max-age=60s", Some(0), "4.2.1"),
            ("max-age='60'", Some(0), "4.2.1"),
            ("max-age =60", Some(0), "5.2: no space around ="),
            ("max-age= 60", Some(0), "5.2: no space around ="),
            (
                "extension=\"max-age=60\"",
                None,
                "5.2.3: an argument of something else",
            ),
            (
                "x-max-age=60, max-ages=60",
                None,
                "5.2.3: unknown is ignored",
            ),
        ] {
            assert_eq!(
                parse(&[line]).max_age,
                max_age,
                "{line}: RFC 9111 §{section}"
            );
        }
    }

    #[test]
    fn directives_over_several_lines_are_one_list() {
        let all = parse(&[
            "public, s-maxage=5",
            "",
            "Must-Revalidate,, proxy-revalidate",
            "no-transform,immutable",
        ]);
        let expected = ResponseDirectives {
            s_maxage: Some(5),
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            no_transform: true,
            immutable: true,
            ..Default::default()
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn stale_windows_are_read() {
        let windows = parse(&["max-age=1, stale-while-revalidate=2, stale-if-error=3"]);
        assert_eq!(
            (windows.stale_while_revalidate, windows.stale_if_error),
            (Some(2), Some(3))
        );
    }

    #[test]
    fn field_forms_keep_the_names_and_the_whole_form_wins() {
        for (line, form) in [
            ("no-cache", FieldForm::Whole),
            ("no-cache=\"Set-Cookie\"", names(&["set-cookie"])),
            ("no-cache=set-cookie", names(&["set-cookie"])),
            ("no-cache=\"b, A\"", names(&["b", "a"])),
            ("no-cache=\"b\", no-cache=\"a,b\"", names(&["a", "b"])),
            ("no-cache=\"a\", no-cache", FieldForm::Whole),
            ("no-cache, no-cache=\"a\"", FieldForm::Whole),
            ("no-cache=\"\"", FieldForm::Whole),
            ("no-cache=\"a b\"", FieldForm::Whole),
            ("no-cache=\"a", FieldForm::Whole),
            ("no-cached", FieldForm::Absent),
        ] {
            assert_eq!(parse(&[line]).no_cache, form, "{line}: RFC 9111 §5.2.2.4");
        }
        assert_eq!(parse(&["private=\"x-user\""]).private, names(&["x-user"]));
    }

    #[test]
    fn an_unexpected_argument_restricts_but_never_allows() {
        let odd = parse(&["no-store=1, public=1, must-understand=1, immutable=1"]);
        assert!(odd.no_store);
        assert!(!odd.public && !odd.must_understand && !odd.immutable);
    }

    proptest! {
        #[test]
        fn any_bytes_parse(value in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(header::CACHE_CONTROL, value);
                let parsed = ResponseDirectives::parse(&headers);
                prop_assert!(parsed.max_age.is_none_or(|s| s <= MAX_DELTA_SECONDS));
            }
        }

        /// Even a quote that never closes hides no restriction.
        #[test]
        fn a_restriction_is_seen_wherever_it_stands(before in "[a-z =\",]{0,20}", after in "[a-z =,]{0,20}") {
            let line = format!("{before},no-store,{after}");
            prop_assert!(parse(&[&line]).no_store, "{}", line);
        }
    }
}
