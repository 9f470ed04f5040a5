//! Texts that select paths, brought into the normal form in which paths are compared: URLs,
//! prefixes and patterns of purges, and patterns of routes.
//!
//! A text begins with a path, or with a host (and perhaps a scheme before it), which stays as it
//! is.

use std::borrow::Cow;

use super::normal::{self, TextEnd, UriPart, escape, remove_dot_segments, split};
use super::rules::merge_slashes;

/// The octets of a header field as text: octets outside ASCII are percent-encoded.
pub fn of_octets(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        Ok(_) | Err(_) => {
            let mut text = String::with_capacity(octets.len() + 16);
            for &octet in octets {
                match octet.is_ascii() {
                    true => text.push(octet as char),
                    false => normal::push_escape(octet, &mut text),
                }
            }
            Cow::Owned(text)
        }
    }
}

/// Normalises a whole URL: `http://host/path?query`, `host/path?query` or `/path?query`.
pub fn whole(url: &str) -> Cow<'_, str> {
    let (host, target) = url.split_at(path_at(url));
    match target.is_empty() {
        true => Cow::Borrowed(url),
        false => joined(url, host, &normal::normal(target)),
    }
}

/// Normalises the beginning of a URL. Its last segment, and an escape that is cut off, stay open:
/// `/a/..` is the beginning of `/a/..b`, `/caf%C3%A` that of `/caf%C3%A9`.
pub fn beginning(prefix: &str) -> Cow<'_, str> {
    let (host, target) = prefix.split_at(path_at(prefix));
    let mut escaped = String::with_capacity(target.len() + 16);
    escape(
        target.as_bytes(),
        &mut UriPart::Path,
        TextEnd::Open,
        &mut escaped,
    );
    let (path, query) = split(&escaped);
    let open = match query.is_empty() {
        true => path.rfind('/').map_or(path.len(), |slash| slash + 1),
        false => path.len(),
    };
    let (folder, rest) = path.split_at(open);
    let folder = match folder.is_empty() {
        true => String::new(),
        false => remove_dot_segments(folder),
    };
    joined(prefix, host, &format!("{folder}{rest}{query}"))
}

/// Normalises a pattern for URLs or paths; its wildcards stay what they are.
pub fn pattern(pattern: &str) -> Cow<'_, str> {
    let at = path_at(pattern).min(pattern.find('*').unwrap_or(pattern.len()));
    let (host, target) = pattern.split_at(at);
    let escaped = escaped_pattern(target);
    let (path, query) = escaped.split_at(escaped.find("\\?").unwrap_or(escaped.len()));
    let path = match path.find('/') {
        Some(slash) => {
            let (open, path) = path.split_at(slash);
            format!("{open}{}", without_dots(path))
        }
        None => path.to_owned(),
    };
    joined(pattern, host, &format!("{path}{query}"))
}

/// The other forms that a text in normal form has where escaped slashes are decoded and repeated ones
/// merged, which listeners and routes may do. `query` is what its query begins with, and `normal` what
/// brings such a text into its normal form.
pub fn reshaped(text: &str, query: &str, normal: fn(&str) -> Cow<'_, str>) -> Vec<String> {
    let with_path = |text: &str, change: fn(&str) -> String| {
        let (host, target) = text.split_at(path_at(text));
        let (path, rest) = target.split_at(target.find(query).unwrap_or(target.len()));
        format!("{host}{}{rest}", change(path))
    };
    let decoded = with_path(text, |path| path.replace("%2F", "/"));
    let decoded = normal(&decoded).into_owned();
    let merged = [text, &decoded].map(|form| with_path(form, merge_slashes));
    let mut forms: Vec<String> = merged.into_iter().chain([decoded]).collect();
    forms.sort_unstable();
    forms.dedup();
    forms.retain(|form| form != text);
    forms
}

/// Whether a pattern for paths has segments that normalisation removes from paths.
pub fn has_dot_segments(pattern: &str) -> bool {
    let escaped = escaped_pattern(pattern);
    let mut segments = escaped.split('/');
    segments.any(|segment| matches!(segment, "." | ".."))
}

fn joined<'a>(given: &'a str, host: &str, target: &str) -> Cow<'a, str> {
    match given.strip_prefix(host) == Some(target) {
        true => Cow::Borrowed(given),
        false => Cow::Owned(format!("{host}{target}")),
    }
}

/// Where the path of a URL begins, or its query if it has no path.
fn path_at(url: &str) -> usize {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| url.starts_with(scheme))
        .map_or(0, str::len);
    url[scheme..]
        .find(['/', '?'])
        .map_or(url.len(), |at| scheme + at)
}

/// The pattern with the texts between its wildcards in normal form.
fn escaped_pattern(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let (mut text, mut part) = (String::new(), UriPart::Path);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => {
                push_text(&text, &mut part, TextEnd::Open, &mut out);
                text.clear();
                out.push(c);
            }
            '\\' => text.push(chars.next().unwrap_or('\\')),
            c => text.push(c),
        }
    }
    push_text(&text, &mut part, TextEnd::Whole, &mut out);
    out
}

fn push_text(text: &str, part: &mut UriPart, end: TextEnd, out: &mut String) {
    let mut escaped = String::with_capacity(text.len() + 16);
    escape(text.as_bytes(), part, end, &mut escaped);
    for c in escaped.chars() {
        if matches!(c, '*' | '?' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// A pattern without dot segments. `..` is kept behind a segment with a `*`, which may stand for
/// several segments, and behind a `..` that is kept.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_open = kept
            .last()
            .is_some_and(|last| has_run(last) || *last == "..");
        match segment {
            "." => {}
            ".." if !is_open => drop(kept.pop()),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    kept.iter().fold(String::new(), |path, s| path + "/" + s)
}

/// Whether a segment has a `*` that is a wildcard.
fn has_run(segment: &str) -> bool {
    let octets = segment.as_bytes();
    let mut stars = octets
        .iter()
        .enumerate()
        .filter(|(_, octet)| **octet == b'*');
    stars.any(|(at, _)| at == 0 || octets[at - 1] != b'\\')
}
