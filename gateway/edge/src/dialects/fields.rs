//! Fields of requests to purge: their text, and the lists of tags in them.

use http::HeaderMap;

use super::wish::{InvalidPurgeRequest, PurgeTarget};
use crate::cache::purge::PurgeKind;
use crate::cache::tags::MAX_TAG_BYTES;

/// The lines of a field. Empty if the request does not have it.
pub fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, InvalidPurgeRequest> {
    let lines = headers.get_all(name).iter();
    let lines = lines.map(|line| std::str::from_utf8(line.as_bytes()).map(str::trim));
    let lines: Result<Vec<&str>, _> = lines.collect();
    lines.map_err(|_| malformed(name, "is not text"))
}

/// The text of a field that says one thing. None if the request does not have it.
///
/// # Errors
/// If it has several lines: joined they would say something else, and each alone only a part.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, InvalidPurgeRequest> {
    match lines(headers, name)?[..] {
        [] => Ok(None),
        [line] => Ok(Some(line)),
        _ => Err(malformed(name, "has several lines, and one is expected")),
    }
}

/// The tags of a field that names them with these characters in between. None if the request does
/// not have the field.
pub fn listed(
    headers: &HeaderMap,
    name: &str,
    between: impl Fn(char) -> bool,
) -> Result<Option<Vec<PurgeTarget>>, InvalidPurgeRequest> {
    let lines = lines(headers, name)?;
    if lines.is_empty() {
        return Ok(None);
    }
    let tags = lines.iter().flat_map(|line| line.split(&between));
    let tags = tags.map(str::trim).filter(|tag| !tag.is_empty());
    tagged(tags.map(str::to_owned).collect(), name).map(Some)
}

/// The tags of a field in which responses name theirs. Some applications put spaces between them,
/// others commas, and with either as the one separator tags may have the other one in them: all
/// readings count. None if the request does not have the field.
pub fn named_as_in_responses(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<Vec<PurgeTarget>>, InvalidPurgeRequest> {
    let Some(mut targets) = listed(headers, name, spaces_and_commas)? else {
        return Ok(None);
    };
    let usual = match name.eq_ignore_ascii_case("surrogate-key") {
        true => |letter: char| letter.is_ascii_whitespace(),
        false => |letter: char| letter == ',',
    };
    for tag in lines(headers, name)?
        .iter()
        .flat_map(|line| line.split(usual))
    {
        let tag = tag.trim().trim_end_matches(',');
        let target = PurgeTarget::Tag(tag.to_owned());
        if !tag.is_empty() && tag.len() <= MAX_TAG_BYTES && !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(Some(targets))
}

/// The tags of these texts as they are stored where responses put spaces or commas between them.
pub fn words(texts: Vec<String>) -> Vec<String> {
    let words = texts.iter().flat_map(|text| text.split(spaces_and_commas));
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Targets for these tags, which a field names.
pub fn tagged(tags: Vec<String>, name: &str) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    if tags.is_empty() {
        return Err(malformed(name, "names no tag"));
    }
    if tags.iter().any(|tag| tag.is_empty() || tag != tag.trim()) {
        let what = "has a tag that is empty or has spaces around it";
        return Err(malformed(name, what));
    }
    match tags.iter().all(|tag| tag.len() <= MAX_TAG_BYTES) {
        true => Ok(tags.into_iter().map(PurgeTarget::Tag).collect()),
        false => Err(malformed(
            name,
            &format!("has a tag of more than {MAX_TAG_BYTES} bytes"),
        )),
    }
}

/// Spaces or commas, as applications write them for `xkey` and `Surrogate-Key`.
pub fn spaces_and_commas(letter: char) -> bool {
    letter == ',' || letter.is_ascii_whitespace()
}

/// Whether the request asks for a soft or a hard purge. None if it does not say.
pub fn softly(headers: &HeaderMap) -> Result<Option<PurgeKind>, InvalidPurgeRequest> {
    let ours = match single(headers, "x-purge")? {
        None => None,
        Some(word) if word.eq_ignore_ascii_case("soft") => Some(PurgeKind::Soft),
        Some(word) if word.eq_ignore_ascii_case("hard") => Some(PurgeKind::Hard),
        Some(_) => return Err(malformed("X-Purge", "is neither `soft` nor `hard`")),
    };
    let fastly = match single(headers, "fastly-soft-purge")? {
        None => None,
        Some("1" | "true") => Some(PurgeKind::Soft),
        Some("0" | "false") => Some(PurgeKind::Hard),
        Some(_) => return Err(malformed("Fastly-Soft-Purge", "is neither `1` nor `0`")),
    };
    match (ours, fastly) {
        (Some(one), Some(other)) if one != other => Err(InvalidPurgeRequest::malformed(
            "X-Purge and Fastly-Soft-Purge differ",
        )),
        (one, other) => Ok(one.or(other)),
    }
}

/// A refusal about a field.
pub fn malformed(name: &str, what: &str) -> InvalidPurgeRequest {
    InvalidPurgeRequest::malformed(format!("the field {name} {what}"))
}
