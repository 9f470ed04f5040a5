//! Which other paths an origin may see in a path in normal form. Which changes are considered, and
//! which are not, is described in [`super`].

use super::PathFault;
use super::normal::{UriPart, hex, may_stand, push_escape, remove_dot_segments};
use super::rules::merge_slashes;

/// How often an origin and the servers before it may decode a path.
pub const MOST_DECODINGS: usize = 4;

/// Other paths, in the form that patterns are compared with: octets that are not allowed
/// unencoded in a path are percent-encoded, all others are decoded.
pub type PathReadings = Vec<String>;

/// Whether there may be readings: the cheap check before [`readings`].
pub fn may_differ(path: &str) -> bool {
    let octets = path.as_bytes();
    octets.iter().enumerate().any(|(at, octet)| match octet {
        b';' => true,
        b'/' => octets.get(at + 1) == Some(&b'/'),
        b'%' => match (hex(octets.get(at + 1)), hex(octets.get(at + 2))) {
            (Some(high), Some(low)) => is_telling(high << 4 | low),
            _ => true,
        },
        _ => false,
    })
}

/// Whether an octet makes another path once its escape is decoded.
fn is_telling(octet: u8) -> bool {
    may_stand(octet, UriPart::Path) || matches!(octet, 0 | b'%' | b'?' | b'#' | b'\\')
}

/// The readings of a path in normal form that differ from the path itself.
///
/// # Errors
/// When the path is encoded more often than [`MOST_DECODINGS`] times.
pub fn readings(path: &str) -> Result<PathReadings, PathFault> {
    if !may_differ(path) {
        return Ok(Vec::new());
    }
    let mut forms = vec![path.as_bytes().to_vec()];
    also(&mut forms, |form| without_parameters(form));
    // These are still escaped.
    let mut texts: Vec<String> = forms.iter().map(|form| lossless(form)).collect();
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..MOST_DECODINGS {
        let again = decode(&decoded);
        if again == decoded {
            return Ok(finished(path, texts));
        }
        decoded = again;
        let mut forms = vec![decoded.clone()];
        also(&mut forms, |form| cut_short(form));
        also(&mut forms, |form| with_backslashes_as_slashes(form));
        also(&mut forms, |form| without_parameters(form));
        texts.extend(forms.iter().map(|form| escaped(form)));
    }
    match decode(&decoded) == decoded {
        true => Ok(finished(path, texts)),
        false => Err(PathFault::TooDeep),
    }
}

/// Adds the forms with merged slashes, and removes dot segments from all.
fn finished(path: &str, mut texts: Vec<String>) -> PathReadings {
    let merged = |text: &String| text.contains("//").then(|| merge_slashes(text));
    texts.sort_unstable();
    texts.dedup();
    also(&mut texts, merged);
    for text in texts.iter_mut().filter(|text| text.contains("/.")) {
        *text = remove_dot_segments(text);
    }
    also(&mut texts, merged);
    texts.sort_unstable();
    texts.dedup();
    texts.retain(|text| text != path);
    texts
}

/// Adds what `change` makes of each form, where that differs from it.
fn also<T>(forms: &mut Vec<T>, change: impl Fn(&T) -> Option<T>) {
    let more: Vec<T> = forms.iter().filter_map(change).collect();
    forms.extend(more);
}

fn lossless(escaped: &[u8]) -> String {
    String::from_utf8_lossy(escaped).into_owned()
}

/// The octets of a path as text that patterns are compared with.
fn escaped(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() + 16);
    for &octet in octets {
        match may_stand(octet, UriPart::Path) {
            true => text.push(octet as char),
            false => push_escape(octet, &mut text),
        }
    }
    text
}

fn decode(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

/// As servers written in C see it, or servers that parse the decoded text as a URL again.
fn cut_short(path: &[u8]) -> Option<Vec<u8>> {
    let end = path
        .iter()
        .position(|octet| matches!(octet, 0 | b'?' | b'#'))?;
    Some(path[..end].to_vec())
}

fn with_backslashes_as_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let slash = |octet: &u8| match octet {
        b'\\' => b'/',
        octet => *octet,
    };
    path.contains(&b'\\')
        .then(|| path.iter().map(slash).collect())
}

/// As servers for Java see it.
fn without_parameters(path: &[u8]) -> Option<Vec<u8>> {
    if !path.contains(&b';') {
        return None;
    }
    let segments = path.split(|octet| *octet == b'/');
    let names = segments.map(|segment| segment.split(|octet| *octet == b';').next());
    let names: Vec<&[u8]> = names.map(Option::unwrap_or_default).collect();
    Some(names.join(&b'/'))
}
