//! The kind of device that a client is, in three words.
//!
//! The words and the signs are those that browsers' makers give: `Sec-CH-UA-Mobile` says it
//! outright; otherwise `Mobi` in the `User-Agent` is a phone, and Android without it, or `iPad`, a
//! tablet.

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};

const SEC_CH_UA_MOBILE: HeaderName = HeaderName::from_static("sec-ch-ua-mobile");

/// The kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceClass {
    Mobile,
    Tablet,
    /// Also all that says nothing of itself.
    Desktop,
}

impl DeviceClass {
    pub fn of(headers: &HeaderMap) -> Self {
        let agent = headers
            .get(USER_AGENT)
            .map_or(&b""[..], |agent| agent.as_bytes());
        let says = |word: &str| memchr::memmem::find(agent, word.as_bytes()).is_some();
        if says("iPad") || says("Tablet") || (says("Android") && !says("Mobi")) {
            return Self::Tablet;
        }
        let hint = headers.get(SEC_CH_UA_MOBILE).map(HeaderValue::as_bytes);
        match hint == Some(b"?1") || says("Mobi") {
            true => Self::Mobile,
            false => Self::Desktop,
        }
    }

    pub fn to_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_by_what_they_say() {
        use DeviceClass::{Desktop, Mobile, Tablet};
        for (agent, hint, expected) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Mobile/15E148 Safari/604.1",
                "",
                Mobile,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/126.0 Mobile Safari/537.36",
                "?1",
                Mobile,
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X700) Chrome/126.0 Safari/537.36",
                "?0",
                Tablet,
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) Mobile/15E148 Safari/604.1",
                "",
                Tablet,
            ),
            (
                "Mozilla/5.0 (Android 14; Tablet; rv:127.0) Gecko/127.0 Firefox/127.0",
                "",
                Tablet,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) Chrome/126.0 Safari/537.36",
                "?0",
                Desktop,
            ),
            ("curl/8.5", "", Desktop),
            ("", "?1", Mobile),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            headers.insert(SEC_CH_UA_MOBILE, hint.parse().unwrap());
            assert_eq!(DeviceClass::of(&headers), expected, "{agent} {hint}");
        }
        assert_eq!(DeviceClass::of(&HeaderMap::new()), Desktop);
    }
}
