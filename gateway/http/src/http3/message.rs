//! Heads of requests and trailers, made of the fields of a section (RFC 9114 §4.2, §4.3).

use http::header::{CONTENT_LENGTH, HOST, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::qpack::RawField;

/// A section that is no message (`H3_MESSAGE_ERROR`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedMessage;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    pub request: Request<()>,
    /// What `Content-Length` announces.
    pub content_length: Option<u64>,
    /// Whether the path had a fragment, which no request may have; it is removed.
    pub had_fragment: bool,
}

/// The pseudo-header fields of a request.
#[derive(Default)]
struct PseudoFields<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
}

impl<'a> PseudoFields<'a> {
    /// Notes a field whose name begins with a colon.
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), MalformedMessage> {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            _ => return Err(MalformedMessage),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(MalformedMessage),
        }
    }
}

/// Makes the head of a request.
///
/// # Errors
/// If the fields are none.
pub fn request_head(fields: &[RawField]) -> Result<RequestHead, MalformedMessage> {
    let mut pseudo = PseudoFields::default();
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if name.first() == Some(&b':') {
            if !headers.is_empty() {
                return Err(MalformedMessage);
            }
            pseudo.note(name, value)?;
        } else {
            let (name, value) = field(name, value)?;
            headers.append(name, value);
        }
    }
    let method = Method::from_bytes(pseudo.method.ok_or(MalformedMessage)?);
    let method = method.map_err(|_| MalformedMessage)?;
    let (uri, had_fragment) = target(&method, &pseudo)?;
    if let (Some(authority), Some(host)) = (uri.authority(), headers.get(HOST))
        && !authority
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(MalformedMessage);
    }
    let content_length = content_length(&headers)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_3;
    *request.headers_mut() = headers;
    Ok(RequestHead {
        request,
        content_length,
        had_fragment,
    })
}

/// Makes trailers.
///
/// # Errors
/// If there are pseudo-header fields among them, or fields that are none.
pub fn trailers(fields: &[RawField]) -> Result<HeaderMap, MalformedMessage> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let (name, value) = field(name, value)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

/// A field that is no pseudo-header field: its name in small letters, and not one of a connection.
fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), MalformedMessage> {
    let is_lower = !name.iter().any(u8::is_ascii_uppercase);
    let padded = |octet: Option<&u8>| octet.is_some_and(|octet| matches!(octet, b' ' | b'\t'));
    if !is_lower || padded(value.first()) || padded(value.last()) {
        return Err(MalformedMessage);
    }
    let name = HeaderName::from_bytes(name).map_err(|_| MalformedMessage)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| MalformedMessage)?;
    let of_connection = matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    );
    if of_connection || (name == TE && value != "trailers") {
        return Err(MalformedMessage);
    }
    Ok((name, value))
}

/// The target, and whether a fragment was removed from it.
fn target(method: &Method, pseudo: &PseudoFields<'_>) -> Result<(Uri, bool), MalformedMessage> {
    let authority = |octets: &[u8]| Authority::try_from(octets).map_err(|_| MalformedMessage);
    let mut parts = http::uri::Parts::default();
    if *method == Method::CONNECT {
        // A tunnel; the listener refuses it.
        let (Some(to), None, None) = (pseudo.authority, pseudo.scheme, pseudo.path) else {
            return Err(MalformedMessage);
        };
        parts.authority = Some(authority(to)?);
        let uri = Uri::from_parts(parts).map_err(|_| MalformedMessage)?;
        return Ok((uri, false));
    }
    let (Some(scheme), Some(path)) = (pseudo.scheme, pseudo.path) else {
        return Err(MalformedMessage);
    };
    let before = path
        .split(|octet| *octet == b'#')
        .next()
        .unwrap_or_default();
    if !before.starts_with(b"/") && before != b"*" {
        return Err(MalformedMessage);
    }
    parts.path_and_query = Some(PathAndQuery::try_from(before).map_err(|_| MalformedMessage)?);
    // Without an authority `Host` names it; a URI can't have a scheme then.
    if let Some(to) = pseudo.authority {
        parts.scheme = Some(Scheme::try_from(scheme).map_err(|_| MalformedMessage)?);
        parts.authority = Some(authority(to)?);
    }
    let uri = Uri::from_parts(parts).map_err(|_| MalformedMessage)?;
    Ok((uri, before.len() < path.len()))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, MalformedMessage> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    let digits = first.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !plain || all.next().is_some() {
        return Err(MalformedMessage);
    }
    let text = std::str::from_utf8(digits).map_err(|_| MalformedMessage)?;
    text.parse().map(Some).map_err(|_| MalformedMessage)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> Result<RequestHead, MalformedMessage> {
        let fields = fields.iter().map(|(name, value)| {
            let octets = |text: &'static str| Bytes::from_static(text.as_bytes());
            (octets(name), octets(value))
        });
        request_head(&fields.collect::<Vec<_>>())
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/x?y"),
    ];

    fn get(more: &[(&'static str, &'static str)]) -> Result<RequestHead, MalformedMessage> {
        head(&[&GET[..], more].concat())
    }

    #[test]
    fn a_head_becomes_a_request() {
        let read = get(&[
            ("host", "a.test"),
            ("te", "trailers"),
            ("content-length", "3"),
        ])
        .unwrap();
        assert_eq!(read.request.uri(), "https://a.test/x?y");
        assert_eq!(read.request.version(), Version::HTTP_3);
        assert_eq!((read.content_length, read.had_fragment), (Some(3), false));
        let read = head(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/a#b"),
            ("host", "h"),
        ]);
        let read = read.unwrap();
        assert_eq!(read.request.uri(), "/a");
        assert!(read.had_fragment);
        let read = head(&[(":method", "CONNECT"), (":authority", "a:1")]).unwrap();
        assert_eq!(read.request.method(), Method::CONNECT);
    }

    #[test]
    fn malformed_heads_are_refused() {
        for more in [
            &[(":method", "GET")][..],
            &[(":protocol", "websocket")],
            &[("x", "y"), (":path", "/")],
            &[("Upper", "x")],
            &[("connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "x")],
            &[("te", "gzip")],
            &[("host", "b.test")],
            &[("x", " padded")],
            &[("x", "a\nb")],
            &[("", "x")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "99999999999999999999")],
        ] {
            assert!(get(more).is_err(), "{more:?}");
        }
        for left_out in [0, 1, 3] {
            let mut fields = GET.to_vec();
            fields.remove(left_out);
            assert!(head(&fields).is_err(), "without {}", GET[left_out].0);
        }
        for path in ["", "x", "http://a/"] {
            let mut fields = GET;
            fields[3].1 = path;
            assert!(head(&fields).is_err(), "{path:?}");
        }
    }
}
