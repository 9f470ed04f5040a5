//! Checks the form of single values: addresses, URLs, names. These are pure functions; the error is
//! the message without the path.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::problem::nearest;

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PURGE",
];

/// Checks an address or a block of addresses in CIDR notation.
pub fn cidr(text: &str) -> Result<(), String> {
    let (address, length) = text
        .split_once('/')
        .map_or((text, None), |(a, l)| (a, Some(l)));
    let bits = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => {
            return Err(format!(
                "{text:?} is not a block of addresses; expected CIDR, as in 10.0.0.0/8 or ::1/128"
            ));
        }
    };
    let good = length.is_none_or(|l| {
        l.bytes().all(|b| b.is_ascii_digit()) && l.parse::<u8>().is_ok_and(|n| n <= bits)
    });
    if good {
        Ok(())
    } else {
        Err(format!(
            "bad prefix length in {text:?}; expected 0 to {bits}"
        ))
    }
}

/// The most bytes of the path of a socket (`sun_path`, unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Checks a name that name servers are asked for: labels of letters, digits, `-` and `_` (RFC 1035
/// §2.3.1, RFC 2782).
pub fn host_name(text: &str) -> Result<(), String> {
    const FORM: &str = "expected a name as in app.internal or _http._tcp.shop.example";
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("{text:?} is an address; expected `url`, or a name"));
    }
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(good)
    };
    let bare = text.strip_suffix('.').unwrap_or(text);
    match bare.len() <= 253 && bare.split('.').all(label) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a host name; {FORM}")),
    }
}

/// Checks the URL of an origin server: `http://host:port`, `https://host:port` or `unix:PATH`, and
/// nothing more.
pub fn target(text: &str) -> Result<(), String> {
    const FORM: &str = "expected a URL as in http://127.0.0.1:9000";
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') && path.len() <= MAX_SOCKET_PATH {
            true => Ok(()),
            false => Err(format!(
                "{text:?} is not the path of a socket; expected an absolute path of {MAX_SOCKET_PATH} bytes at most, as in unix:/run/app.sock"
            )),
        };
    }
    // This comes first, since the other messages repeat the text, which holds a password here.
    if text.contains('@') {
        return Err("user information in a URL; expected scheme, host and port only".to_owned());
    }
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("{text:?} is not a URL; {FORM}"));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(format!(
            "{text:?} has a path; expected scheme, host and port only, as in http://127.0.0.1:9000"
        ));
    }
    let parsed: ::http::uri::Authority = authority
        .parse()
        .map_err(|_| format!("{text:?} is not a URL; {FORM}"))?;
    let port_text = authority
        .rsplit_once(']')
        .map_or(authority, |(_, tail)| tail)
        .split_once(':')
        .map(|(_, port)| port);
    let good_port = port_text.is_none_or(|_| parsed.port_u16().is_some_and(|port| port > 0));
    if parsed.host().is_empty() || !good_port {
        return Err(format!("{text:?} has a bad host or port; {FORM}"));
    }
    Ok(())
}

/// Checks an HTTP method in capitals.
pub fn method(text: &str) -> Result<(), String> {
    let upper = text.to_ascii_uppercase();
    let bad = text.is_empty() || ::http::Method::from_bytes(text.as_bytes()).is_err();
    // Methods are case-sensitive (RFC 9110 §9.1), and nobody intends `post`.
    if bad || text != upper {
        let hint = nearest(&upper, &METHODS)
            .map(|m| format!("; did you mean `{m}`?"))
            .unwrap_or_default();
        return Err(format!(
            "{text:?} is not a method; expected capitals, as in POST{hint}"
        ));
    }
    Ok(())
}

/// Checks the name of a header field (RFC 9110 §5.1).
pub fn header_name(text: &str) -> Result<(), String> {
    ::http::HeaderName::from_bytes(text.as_bytes())
        .map(drop)
        .map_err(|_| format!("{text:?} is not a header name; expected letters, digits and `-`, as in accept-language"))
}

/// Checks the value of a header field (RFC 9110 §5.5).
pub fn header_value(text: &str) -> Result<(), String> {
    match !text.is_empty() && text.trim() == text && text.parse::<::http::HeaderValue>().is_ok() {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a field's value; expected visible ASCII without spaces around it"
        )),
    }
}

/// Checks a status that an origin may answer with (RFC 9110 §15).
pub fn status(code: u16) -> Result<(), String> {
    if (100..=999).contains(&code) {
        Ok(())
    } else {
        Err(format!("{code} is not a status; expected 100 to 999"))
    }
}

/// Checks a name that is used in metrics, logs and file names.
pub fn name(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a name; expected 1 to 64 letters, digits, `-`, `_` or `.`"
    ))
}

/// Checks a tag. Headers separate tags by spaces and commas, so a tag may hold neither.
pub fn tag(text: &str) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == ',';
    if text.is_empty() || text.contains(bad) {
        return Err(format!(
            "{text:?} is not a tag; expected a text without spaces and commas"
        ));
    }
    Ok(())
}

/// Checks a pattern for a host: a name, or an address as URLs have it.
pub fn host(text: &str) -> Result<(), String> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bracketed.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()) {
        return Ok(());
    }
    if text.is_empty()
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:@?#".contains(c))
    {
        return Err(format!(
            "{text:?} is not a host; expected a name without scheme, port and path, as in *.example.com"
        ));
    }
    Ok(())
}

/// Checks a path that an origin is asked for, with or without a query.
pub fn origin_path(text: &str) -> Result<(), String> {
    let parsed: Result<::http::uri::PathAndQuery, _> = text.parse();
    match parsed.is_ok() && text.starts_with('/') && !text.contains('#') {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a path; expected one as in /healthz"
        )),
    }
}

/// Checks a value of `Host`.
pub fn host_field(text: &str) -> Result<(), String> {
    let parsed: Result<::http::uri::Authority, _> = text.parse();
    match parsed.is_ok() && !text.contains('@') {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a host; expected one as in shop.example or shop.example:8080"
        )),
    }
}

/// Checks a pattern for content types.
pub fn content_type(text: &str) -> Result<(), String> {
    let is_odd = |c: char| c.is_whitespace() || matches!(c, ';' | ',');
    match text.contains(['/', '*']) && !text.contains(is_odd) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is no pattern for a content type; expected one without parameters, as in \
             image/* or text/html"
        )),
    }
}

/// Checks a language tag (RFC 5646 §2.1, without its registry).
pub fn language(text: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_alphanumeric())
    };
    match text.split('-').all(is_part) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a language tag; expected one, as in de or en-GB"
        )),
    }
}

/// Checks a pattern for a path.
pub fn path_pattern(text: &str) -> Result<(), String> {
    if !text.starts_with(['/', '*']) {
        return Err(format!(
            "{text:?} can match no path; expected a `/` at the start, as in /{text}"
        ));
    }
    if text.contains(['?', '#']) && text.contains('=') {
        return Err(format!(
            "{text:?} holds a query; a path is matched without it (`?` stands for one character)"
        ));
    }
    Ok(())
}

/// Checks a selector template: text with placeholders for parts of the request.
pub fn template(text: &str) -> Result<(), String> {
    const KNOWN: &str = "expected {path}, {path.N}, {query.NAME}, {header.NAME} or {host}";
    if text.is_empty() {
        return Err("empty; expected what to purge".to_owned());
    }
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let inner = rest[brace..]
            .strip_prefix('{')
            .ok_or_else(|| format!("`}}` without `{{` in {text:?}; {KNOWN}"))?;
        let end = inner
            .find('}')
            .ok_or_else(|| format!("`{{` without `}}` in {text:?}; {KNOWN}"))?;
        placeholder(&inner[..end]).map_err(|hint| {
            format!("unknown placeholder `{{{}}}`; {KNOWN}{hint}", &inner[..end])
        })?;
        rest = &inner[end + 1..];
    }
    Ok(())
}

fn placeholder(inner: &str) -> Result<(), String> {
    let (word, argument) = inner
        .split_once('.')
        .map_or((inner, None), |(w, a)| (w, Some(a)));
    let good = match (word, argument) {
        ("path" | "host", None) => true,
        ("path", Some(n)) => n.parse::<u16>().is_ok_and(|n| n > 0),
        ("query", Some(name)) => !name.is_empty(),
        ("header", Some(name)) => header_name(name).is_ok(),
        _ => false,
    };
    let known = ["path", "query", "header", "host"];
    let hint = || {
        nearest(word, &known)
            .filter(|w| *w != word)
            .map(|w| format!("; did you mean `{w}`?"))
            .unwrap_or_default()
    };
    if good { Ok(()) } else { Err(hint()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_addresses() {
        for good in ["10.0.0.0/8", "127.0.0.1", "::1/128", "::/0"] {
            assert_eq!(cidr(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "host",
        ] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_is_scheme_host_and_port() {
        for good in [
            "http://127.0.0.1:8081",
            "http://origin",
            "http://[::1]:80",
            "http://o.example/",
        ] {
            assert_eq!(target(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "http://",
            "origin:80",
            "http://h:99999",
            "http://h:0",
            "http://h:",
            "http://h/x",
            "http://u:p@h",
            "ftp://h",
            "http://a b",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn templates_know_their_placeholders() {
        for good in [
            "/items",
            "{path}",
            "item-{path.2}",
            "{host}{path}?id={query.id}",
            "u-{header.x-user}",
        ] {
            assert_eq!(template(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "{",
            "}",
            "{paht}",
            "{path.0}",
            "{path.x}",
            "{query}",
            "{header.a b}",
            "{}",
        ] {
            assert!(template(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn methods_are_written_in_capitals() {
        assert_eq!(method("BREW"), Ok(()));
        assert!(method("post").is_err_and(|m| m.contains("`POST`")));
        assert!(method("GE T").is_err());
    }
}
