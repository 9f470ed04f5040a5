//! nginx's times, sizes and variables as Lamina writes them.

/// `30`, `30s`, `5m`, `1h 30m` as a duration.
pub fn duration(text: &str) -> Option<String> {
    let units = ["ms", "s", "m", "h", "d"];
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "" => Some(format!("{number}s")),
        "w" => Some(format!("{}d", number * 7)),
        "M" => Some(format!("{}d", number * 30)),
        "y" => Some(format!("{}d", number * 365)),
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
    Some(match unit {
        "ms" => number / 1000,
        "m" => number * 60,
        "h" => number * 3600,
        "d" => number * 86400,
        _ => number,
    })
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
const PLACES: [(&str, &str); 8] = [
    ("$request_uri", "{path}"),
    ("$remote_addr", "{client}"),
    ("$request_id", "{request_id}"),
    ("$http_host", "{host}"),
    ("$scheme", "{scheme}"),
    ("$host", "{host}"),
    ("$uri", "{path}"),
    ("$args", "{query}"),
];

/// A text with variables as one with places; none where a variable has no place.
pub fn with_places(text: &str) -> Option<String> {
    let mut text = text.replace('{', "{{").replace('}', "}}");
    for (variable, place) in PLACES {
        text = replace_variable(&text, variable, place);
    }
    while let Some(at) = text.find("$http_") {
        let name: String = text[at + 6..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let place = format!("{{header.{}}}", name.replace('_', "-"));
        text.replace_range(at..at + 6 + name.len(), &place);
    }
    (!text.contains('$')).then_some(text)
}

/// Where a redirect leads; the query goes along by itself.
pub fn target(text: &str) -> Option<String> {
    let mut text = text.to_owned();
    for query in QUERIES {
        if let Some(path) = text.strip_suffix(query) {
            text = path.to_owned();
        }
    }
    with_places(&text).filter(|text| !text.contains("{query}"))
}

/// Replaces a variable, and none whose name only begins like it.
fn replace_variable(text: &str, variable: &str, with: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(variable) {
        let (before, after) = rest.split_at(at);
        let after = &after[variable.len()..];
        done.push_str(before);
        let goes_on = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        done.push_str(if goes_on { variable } else { with });
        rest = after;
    }
    done + rest
}
