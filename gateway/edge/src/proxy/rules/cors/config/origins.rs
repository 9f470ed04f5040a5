//! Origins of sites, as they are configured and as browsers send them (RFC 6454 §6.1).

use http::HeaderValue;

/// An origin, or a set of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginPattern {
    scheme: Box<str>,
    host: HostForm,
    port: PortForm,
    /// As it is configured, where that is one origin: browsers send just this.
    text: Option<Box<str>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum HostForm {
    Exact(Box<str>),
    /// Hosts that end with this text, which begins with a dot, and have a name before it.
    Below(Box<str>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PortForm {
    /// That of the scheme, which browsers leave out.
    Usual,
    Exact(u16),
    Any,
}

/// The parts of an origin.
struct OriginParts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl OriginPattern {
    /// Reads a configured origin.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected scheme, host and perhaps a port, as in \
                            https://app.example.com, https://*.example.com or http://localhost:*";
        let bad = |why: &str| Err(format!("{text:?} {why}; {FORM}"));
        let lower = text.to_ascii_lowercase();
        if lower == "null" {
            return bad("would let every sandboxed frame and every local file in");
        }
        let Some(OriginParts { scheme, host, port }) = split(&lower) else {
            return bad("is not an origin");
        };
        if !scheme
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet))
        {
            return bad("has a bad scheme");
        }
        let host = match host.strip_prefix('*') {
            Some(below) if below.len() > 1 && below.starts_with('.') && is_host(&below[1..]) => {
                HostForm::Below(below.into())
            }
            None if is_host(host) => HostForm::Exact(host.into()),
            _ => return bad("has a bad host: `*` may stand for the first labels of a name alone"),
        };
        let port = match port {
            None => PortForm::Usual,
            Some("*") => PortForm::Any,
            Some(port) => match port.parse() {
                Ok(port) if Some(port) == usual(scheme) => PortForm::Usual,
                Ok(port) if port > 0 => PortForm::Exact(port),
                _ => return bad("has a bad port"),
            },
        };
        let is_one = matches!(host, HostForm::Exact(_)) && port != PortForm::Any;
        Ok(Self {
            scheme: scheme.into(),
            host,
            port,
            text: is_one.then(|| lower.as_str().into()),
        })
    }

    /// Whether a browser's origin is one of these, and that to the letter.
    pub fn is_just(&self, origin: &HeaderValue) -> bool {
        let text = self.text.as_ref();
        text.is_some_and(|text| text.as_bytes() == origin.as_bytes())
    }

    /// Whether a browser's origin is one of these.
    pub fn matches(&self, origin: &str) -> bool {
        let Some(OriginParts { scheme, host, port }) = split(origin) else {
            return false;
        };
        let host_is_right = match &self.host {
            HostForm::Exact(known) => host.eq_ignore_ascii_case(known),
            HostForm::Below(below) => is_below(host, below),
        };
        let number: Option<Option<u16>> = port.map(|port| port.parse().ok());
        let port_is_right = match (self.port, number) {
            (_, Some(None)) => false,
            (PortForm::Any, _) => true,
            (PortForm::Usual, None) => true,
            (PortForm::Usual, Some(number)) => number == usual(&self.scheme),
            (PortForm::Exact(known), Some(number)) => Some(known) == number,
            (PortForm::Exact(_), None) => false,
        };
        scheme.eq_ignore_ascii_case(&self.scheme) && host_is_right && port_is_right
    }
}

fn split(origin: &str) -> Option<OriginParts<'_>> {
    let (scheme, authority) = origin.split_once("://")?;
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    let colon = authority[after_address..].find(':');
    let (host, port) = match colon.map(|at| at + after_address) {
        Some(at) => (&authority[..at], Some(&authority[at + 1..])),
        None => (authority, None),
    };
    let parts = OriginParts { scheme, host, port };
    (!scheme.is_empty() && !host.is_empty()).then_some(parts)
}

/// Whether `host` is a name below `.domain`: anything else before the dot, as `evil/` or `evil?`, is
/// no name, and a parser that reads it in another way must not decide about it.
fn is_below(host: &str, domain: &str) -> bool {
    let Some(at) = host.len().checked_sub(domain.len()).filter(|at| *at > 0) else {
        return false;
    };
    let (first, rest) = (host.get(..at), host.get(at..));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(domain)) && first.is_some_and(is_name)
}

fn is_host(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    }
}

fn is_name(name: &str) -> bool {
    name.split('.').all(|label| {
        let is_good = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        !label.is_empty() && label.bytes().all(is_good)
    })
}

fn usual(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let cases = [
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "https://APP.example.com", true),
            ("https://app.example.com", "http://app.example.com", false),
            (
                "https://app.example.com",
                "https://app.example.com:8443",
                false,
            ),
            (
                "https://app.example.com:443",
                "https://app.example.com",
                true,
            ),
            (
                "https://app.example.com",
                "https://app.example.com.evil",
                false,
            ),
            ("https://app.example.com", "https://xapp.example.com", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            (
                "https://*.example.com",
                "https://evil.com/.example.com",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.com?.example.com",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.com#.example.com",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.com@a.example.com",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.com:80.example.com",
                false,
            ),
            ("https://*.example.com", "https://\u{e9}.example.com", false),
            ("https://*.example.com", "null", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "http://localhost:x", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]:3000", "http://[::1]", false),
        ];
        for (configured, origin, expected) in cases {
            let pattern = OriginPattern::parse(configured).unwrap();
            assert_eq!(pattern.matches(origin), expected, "{configured} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "app.example.com",
            "null",
            "https://",
            "https://*",
            "https://*example.com",
            "https://a.*.example.com",
            "https://a.example.com/",
            "https://a.example.com/path",
            "https://me@a.example.com",
            "https://a.example.com:0",
            "https://a.example.com:http",
        ] {
            assert!(OriginPattern::parse(text).is_err(), "{text}");
        }
    }
}
