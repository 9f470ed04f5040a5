//! Reads paths, imports and names of types from the text of a file, by rustfmt's form of it.

/// Leaves out each item under `#[cfg(test)]`: rustfmt closes it with a `}` (or ends it
/// with a `;`) at the indentation of the attribute.
pub(super) fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(test)]") {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let mut first = true;
        for inside in lines.by_ref() {
            let attribute = inside.trim_start().starts_with("#[");
            if inside == close
                || (first && !attribute && (inside.ends_with(';') || inside.ends_with("{}")))
            {
                break;
            }
            first = first && attribute;
        }
    }
    kept
}

pub(super) fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// What each `use` names, over several lines, too.
pub(super) fn uses(code: &str) -> Vec<String> {
    after_word(code, "use ")
        .into_iter()
        .filter_map(|rest| rest.split_once(';'))
        .map(|(import, _)| import.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Every `crate::a::b…`; a group `crate::{a, b::c}` is taken apart at its top level.
pub(super) fn paths_below(root: &str, code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in after_word(code, root) {
        if let Some(group) = rest.strip_prefix('{') {
            paths.extend(members(group));
        } else {
            paths.push(path_at(rest));
        }
    }
    paths
}

/// What follows each place where `word` begins a path.
pub(super) fn after_word<'a>(code: &'a str, word: &str) -> Vec<&'a str> {
    code.match_indices(word)
        .filter(|(at, _)| {
            !code[..*at]
                .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
        })
        .map(|(at, _)| &code[at + word.len()..])
        .collect()
}

pub(super) fn path_at(text: &str) -> String {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    text[..end].trim_end_matches(':').to_owned()
}

pub(super) fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut found) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(std::mem::take(&mut member)),
            _ if depth == 0 => member.push(c),
            _ => {}
        }
    }
    found.push(member);
    found
        .iter()
        .map(|member| path_at(member.trim()))
        .filter(|path| !path.is_empty())
        .collect()
}

/// Whether `word` stands there, and not as the beginning of a longer name.
pub(super) fn names_word(code: &str, word: &str) -> bool {
    let mut found = code.match_indices(word);
    found.any(|(at, _)| {
        let next = code[at + word.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '(')
    })
}

/// The names of the types that a file defines, but for associated types.
pub(super) fn types(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in code.lines() {
        let indented = line.starts_with("    ");
        let words = line.trim_start().trim_start_matches("unsafe ");
        let words = match words.strip_prefix("pub") {
            Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest),
            None => words,
        };
        for kind in ["struct ", "enum ", "trait ", "union ", "type "] {
            if kind == "type " && indented {
                continue;
            }
            if let Some(rest) = words.strip_prefix(kind) {
                names.push(path_at(rest));
            }
        }
    }
    // A macro has a variable where it defines a type.
    names.retain(|name| !name.is_empty());
    names
}
