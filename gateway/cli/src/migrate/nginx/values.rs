//! nginx's times, sizes and variables as Lamina writes them.

/// `30`, `30s`, `5m`, `1h 30m` as a duration.
pub fn duration(text: &str) -> Option<String> {
    let units = ["ms", "s", "m", "h", "d"];
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    let days = |each: u64| Some(format!("{}d", number.checked_mul(each)?));
    match unit {
        "" => Some(format!("{number}s")),
        "w" => days(7),
        "M" => days(30),
        "y" => days(365),
        unit if units.contains(&unit) => Some(text.to_owned()),
        _ => None,
    }
}

/// The seconds of such a duration.
pub fn seconds(text: &str) -> Option<u64> {
    let text = duration(text)?;
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(number / 1000),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        "d" => number.checked_mul(86400),
        _ => Some(number),
    }
}

/// `10m` as a size.
pub fn size(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let at = lower
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(at);
    let number: u64 = number.parse().ok().filter(|n| *n > 0)?;
    let unit = match unit {
        "" => "B",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// The parts of the query that Lamina adds by itself at the end of a path.
const QUERIES: [&str; 3] = ["$is_args$args", "?$args", "?$query_string"];

/// nginx's variables and Lamina's places for the same.
const PLACES: [(&str, &str); 7] = [
    ("remote_addr", "{client}"),
    ("request_id", "{request_id}"),
    ("http_host", "{host}"),
    ("scheme", "{scheme}"),
    ("host", "{host}"),
    ("uri", "{path}"),
    ("args", "{query}"),
];

/// A piece of a text with variables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextPiece {
    Literal(String),
    /// The name of a variable, without `$` and braces.
    Variable(String),
}

/// The pieces of a text: a name ends where a character can't belong to one, so `$a$b` are two.
pub fn text_pieces(text: &str) -> Vec<TextPiece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c.eq(&'$').then(|| variable_at(rest)).flatten() {
            Some((name, after)) => {
                if !literal.is_empty() {
                    pieces.push(TextPiece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(TextPiece::Variable(name.to_owned()));
                rest = after;
            }
            None => {
                literal.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !literal.is_empty() {
        pieces.push(TextPiece::Literal(literal));
    }
    pieces
}

/// The name of the variable that a text begins with, and what is behind it.
fn variable_at(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, after) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len())),
    };
    (!name.is_empty() && name.chars().all(is_part)).then_some((name, after))
}

/// The names of all variables in a text.
pub fn variables(text: &str) -> Vec<String> {
    let pieces = text_pieces(text).into_iter();
    let names = pieces.filter_map(|piece| match piece {
        TextPiece::Variable(name) => Some(name),
        TextPiece::Literal(_) => None,
    });
    names.collect()
}

/// The value of a field as one with places; none where a variable has no place.
pub fn field_with_places(text: &str) -> Option<String> {
    with_places(text, "{path}?{query}")
}

/// A text with variables as one with places, `$request_uri` as this one.
fn with_places(text: &str, request_uri: &str) -> Option<String> {
    let mut done = String::new();
    for piece in text_pieces(text) {
        match piece {
            TextPiece::Literal(text) if text.contains('$') => return None,
            TextPiece::Literal(text) => {
                done.push_str(&text.replace('{', "{{").replace('}', "}}"));
            }
            TextPiece::Variable(name) => done.push_str(&place_of(&name, request_uri)?),
        }
    }
    Some(done)
}

fn place_of(name: &str, request_uri: &str) -> Option<String> {
    if name == "request_uri" {
        return Some(request_uri.to_owned());
    }
    let known = PLACES.iter().find(|(variable, _)| *variable == name);
    match (known, name.strip_prefix("http_")) {
        (Some((_, place)), _) => Some((*place).to_owned()),
        (None, Some(field)) => Some(format!("{{header.{}}}", field.replace('_', "-"))),
        (None, None) => None,
    }
}

/// A text without the query of the request at its end.
pub fn without_query(text: &str) -> &str {
    let known = QUERIES.iter().find_map(|query| text.strip_suffix(query));
    known.unwrap_or(text)
}

/// Where a redirect leads; the query goes along by itself, unless the target has one of its own.
pub fn target(text: &str) -> Option<String> {
    let text = without_query(text);
    match text.find('?') {
        Some(_) => with_places(text, "{path}?{query}"),
        None => with_places(text, "{path}").filter(|text| !text.contains("{query}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_end_where_their_names_do() {
        assert_eq!(variables("$a$b"), ["a", "b"]);
        assert_eq!(variables("${a}b|$c-x"), ["a", "c"]);
        assert_eq!(
            variables("$cookie_nocache$arg_nocache"),
            ["cookie_nocache", "arg_nocache"]
        );
        assert!(variables("${a b} $ $$").is_empty());
    }

    #[test]
    fn a_whole_target_keeps_its_query_in_a_field() {
        assert_eq!(
            field_with_places("$request_uri").as_deref(),
            Some("{path}?{query}")
        );
        assert_eq!(
            field_with_places("${http_x_a}!").as_deref(),
            Some("{header.x-a}!")
        );
        assert_eq!(field_with_places("$remote_user"), None);
        assert_eq!(
            target("https://x$request_uri").as_deref(),
            Some("https://x{path}")
        );
        assert_eq!(target("/a$is_args$args").as_deref(), Some("/a"));
        assert_eq!(target("/a?b=$arg_b"), None);
    }
}
