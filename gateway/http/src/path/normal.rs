//! The normal form of a path and its query (RFC 3986 §6.2.2).

use std::borrow::Cow;

/// The part of a URI that an octet is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UriPart {
    Path,
    Query,
}

/// What the end of a text means for an escape that is cut off there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextEnd {
    /// Nothing follows, so the percent sign stands for itself.
    Whole,
    /// The rest of the escape may follow.
    Open,
}

/// A class of octets: in a path, it needs a closer look.
const ODD: u8 = 1;
/// It needs a closer look if it follows a slash.
const ODD_AFTER_SLASH: u8 = 2;
/// It is a slash.
const SLASH: u8 = 4;
/// In a query, it needs a closer look.
const ODD_IN_QUERY: u8 = 8;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let b = octet as u8;
        let mut class = 0;
        if !may_stand(b, UriPart::Path) || matches!(b, b'%' | b';') {
            class |= ODD;
        }
        if !may_stand(b, UriPart::Query) || b == b'%' {
            class |= ODD_IN_QUERY;
        }
        if matches!(b, b'/' | b'.') {
            class |= ODD_AFTER_SLASH;
        }
        if b == b'/' {
            class |= SLASH;
        }
        classes[octet] = class;
        octet += 1;
    }
    classes
};

/// RFC 3986 §2.3.
const fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Whether an octet is allowed in the normal form without an escape.
pub(super) const fn may_stand(octet: u8, part: UriPart) -> bool {
    let in_both = is_unreserved(octet)
        || matches!(
            octet,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
        );
    let in_query = matches!(
        octet,
        b'?' | b'[' | b']' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'`'
    );
    in_both || matches!(part, UriPart::Query) && in_query
}

/// Whether path and query are certainly in normal form, and the path has only one reading.
pub(super) fn is_plain(target: &str) -> bool {
    let (mut found, mut after_slash) = (0, 0);
    let mut octets = target.bytes();
    for octet in octets.by_ref().take_while(|octet| *octet != b'?') {
        let class = CLASSES[usize::from(octet)];
        found |= class & (ODD | after_slash);
        // The bit next to SLASH is ODD_AFTER_SLASH, which then counts for the next octet.
        after_slash = (class & SLASH) >> 1;
    }
    for octet in octets {
        found |= CLASSES[usize::from(octet)] & ODD_IN_QUERY;
    }
    let has_path = !matches!(target.as_bytes(), [] | [b'?', ..]);
    found == 0 && has_path
}

/// The normal form of a path with its query.
pub fn normal(target: &str) -> Cow<'_, str> {
    if is_plain(target) {
        return Cow::Borrowed(target);
    }
    let mut escaped = String::with_capacity(target.len() + 16);
    let mut part = UriPart::Path;
    escape(target.as_bytes(), &mut part, TextEnd::Whole, &mut escaped);
    let (path, query) = split(&escaped);
    let mut normal = remove_dot_segments(path);
    normal.push_str(query);
    Cow::Owned(normal)
}

/// The path, and the query with its question mark.
pub(super) fn split(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// Appends `text` with each octet in its normal form. `part` is the part in which the text begins;
/// it is set to the one in which it ends.
pub(super) fn escape(text: &[u8], part: &mut UriPart, end: TextEnd, out: &mut String) {
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        at += 1;
        match octet {
            b'%' => match (hex(text.get(at)), hex(text.get(at + 1))) {
                (Some(high), Some(low)) => {
                    at += 2;
                    push_escaped(high << 4 | low, out);
                }
                _ if end == TextEnd::Open && is_cut_escape(&text[at..]) => {
                    out.push('%');
                    out.extend(text[at..].iter().map(|b| b.to_ascii_uppercase() as char));
                    return;
                }
                _ => out.push_str("%25"),
            },
            b'?' => {
                *part = UriPart::Query;
                out.push('?');
            }
            _ if may_stand(octet, *part) => out.push(octet as char),
            _ => push_escape(octet, out),
        }
    }
}

/// Whether this text behind a percent sign could still become an escape.
fn is_cut_escape(rest: &[u8]) -> bool {
    rest.is_empty() || rest.len() == 1 && rest[0].is_ascii_hexdigit()
}

/// Appends an octet that was escaped: it stays so, unless it is unreserved.
fn push_escaped(octet: u8, out: &mut String) {
    match is_unreserved(octet) {
        true => out.push(octet as char),
        false => push_escape(octet, out),
    }
}

pub(super) fn push_escape(octet: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(DIGITS[usize::from(octet >> 4)] as char);
    out.push(DIGITS[usize::from(octet & 15)] as char);
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: Option<&u8>) -> Option<u8> {
    let value = (*digit? as char).to_digit(16)?;
    u8::try_from(value).ok()
}

/// A path without its `.` and `..` segments (RFC 3986 §5.2.4). The result begins with a slash.
pub fn remove_dot_segments(path: &str) -> String {
    let mut kept = String::with_capacity(path.len() + 1);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.truncate(kept.rfind('/').unwrap_or(0));
        }
        // A path that ends in a dot segment is a folder, so its slash stays.
        if !is_dots || segments.peek().is_none() {
            kept.push('/');
        }
        if !is_dots {
            kept.push_str(segment);
        }
    }
    kept
}
