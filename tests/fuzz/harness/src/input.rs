//! How targets read their bytes: blocks that an empty line parts, lines, header fields, requests.
//!
//! What cannot be read is left out rather than refused: a mutation that breaks one line
//! still tests the others.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

/// The `N` blocks of an input, empty where there are fewer; the last one takes all the rest.
pub fn blocks<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(data);
    std::array::from_fn(|i| {
        let all = rest.take().unwrap_or_default();
        let at = all.windows(2).position(|pair| pair == b"\n\n");
        match at.filter(|_| i + 1 < N) {
            Some(at) => {
                rest = Some(&all[at + 2..]);
                &all[..at]
            }
            None => all,
        }
    })
}

/// The lines of a block.
pub fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    block.split(|&octet| octet == b'\n')
}

/// The lines of a block that are text.
pub fn texts(block: &[u8]) -> impl Iterator<Item = &str> + Clone {
    lines(block).filter_map(|line| std::str::from_utf8(line).ok())
}

/// The lines of a block as values of one field.
pub fn values(name: &HeaderName, block: &[u8]) -> HeaderMap {
    lines(block)
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .map(|value| (name.clone(), value))
        .collect()
}

/// `name: value` lines as they would stand in a message; white space around a value is not part of it.
pub fn fields(block: &[u8]) -> HeaderMap {
    lines(block).filter_map(field).collect()
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// `METHOD target [HTTP/1.0 | HTTP/2]`, then fields.
pub fn request(block: &[u8]) -> Option<Parts> {
    let (line, rest) = match block.iter().position(|&octet| octet == b'\n') {
        Some(end) => (&block[..end], &block[end + 1..]),
        None => (block, &[][..]),
    };
    let mut words = line.split(|&octet| octet == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let version = match words.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let request = Request::builder()
        .method(method)
        .uri(target)
        .version(version);
    let mut parts = request.body(()).ok()?.into_parts().0;
    parts.headers = fields(rest);
    Some(parts)
}

/// Both maps' fields, `more` behind.
pub fn joined(headers: &HeaderMap, more: &HeaderMap) -> HeaderMap {
    let all = headers.iter().chain(more);
    all.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
