//! Which cookies of a request count.

use http::HeaderMap;

use super::config::RequestCookiesConfig;
use crate::http::cookies;
use crate::pattern::Pattern;
use crate::proxy::cover;

/// The cookies that are kept.
pub(super) struct CookieFilter {
    /// None: all that are not dropped.
    keep: Option<Box<[Pattern]>>,
    drop: Box<[Pattern]>,
}

impl CookieFilter {
    /// None: all cookies are kept.
    pub fn new(config: &RequestCookiesConfig) -> Option<Self> {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        let filter = Self {
            keep: config.keep.as_deref().map(patterns),
            drop: patterns(&config.drop),
        };
        (filter.keep.is_some() || !filter.drop.is_empty()).then_some(filter)
    }

    /// Removes the other cookies from a head.
    pub fn apply(&self, headers: &mut HeaderMap) {
        cover::retain_pairs(headers, |pair| self.keeps(pair));
    }

    /// A name that is no text matches no pattern, and what has no `=` is a name (RFC 6265bis §5.6).
    fn keeps(&self, pair: &[u8]) -> bool {
        let name = cookies::name_and_value(pair).0;
        let holds = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| pattern.matches_octets(name))
                && std::str::from_utf8(name).is_ok()
        };
        self.keep.as_deref().is_none_or(holds) && !holds(&self.drop)
    }

    /// The filter in words.
    pub fn describe(&self) -> String {
        let words = |patterns: &[Pattern]| {
            let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
            texts.join(", ")
        };
        let kept = match self.keep.as_deref() {
            None => "cookies: all are kept".to_owned(),
            Some([]) => "cookies: none is kept".to_owned(),
            Some(keep) => format!("cookies: only {} are kept", words(keep)),
        };
        match self.drop.is_empty() {
            true => kept,
            false => format!("{kept}, but not {}", words(&self.drop)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn left(keep: Option<&[&str]>, drop: &[&str], lines: &[&str]) -> Vec<String> {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let config = RequestCookiesConfig {
            keep: keep.map(texts),
            drop: texts(drop),
        };
        let lines = lines.iter().map(|line| (COOKIE, line.parse().unwrap()));
        let mut headers = lines.collect();
        if let Some(filter) = CookieFilter::new(&config) {
            filter.apply(&mut headers);
            let once = headers.clone();
            filter.apply(&mut headers);
            assert_eq!(once, headers, "twice changes nothing");
        }
        let left = headers.get_all(COOKIE).iter();
        left.map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn only_cookies_that_count_are_left() {
        let tracked = ["_ga=1; session=2; _gid=3", "_fbp=4"];
        assert_eq!(left(None, &["_g*", "_fbp"], &tracked), ["session=2"]);
        assert_eq!(left(Some(&["session*"]), &[], &tracked), ["session=2"]);
        assert_eq!(left(Some(&["*"]), &["_*"], &tracked), ["session=2"]);
        assert!(left(Some(&[]), &[], &tracked).is_empty());
        assert_eq!(left(None, &["other"], &tracked), tracked);
        assert_eq!(left(None, &["a"], &["a; b=1;; a=2 ;c"]), ["b=1; c"]);
        assert_eq!(left(None, &["a"], &["A=1; a=2"]), ["A=1"]);
        assert!(left(None, &["a"], &["a=1"]).is_empty());
    }
}
