//! Environment variables inside values: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `$$`.
//!
//! Decision: variables are expanded after parsing, in the scalars of the tree, so that the value of
//! a variable can never add a key or end a quote. Keys are not expanded. A `$` before anything but
//! `{` and `$` stands for itself. The default applies to a variable that is unset or empty, as in a
//! shell, and ends at the first `}`.

use super::problem::{ConfigFinding, ConfigPath, MAX_FINDINGS};
use super::tree::{YamlNode, YamlScalar, YamlValue};

/// The most bytes that the values of all variables may add together.
const BUDGET: usize = 1 << 20;

/// Looks up a variable.
pub type VariableLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every scalar below `root`. All errors are reported together.
pub fn expand(root: &mut YamlNode, env: VariableLookup<'_>) -> Vec<ConfigFinding> {
    let mut walk = VariableExpander {
        env,
        budget: BUDGET,
        findings: Vec::new(),
    };
    walk.node(root, &ConfigPath::default());
    walk.findings
}

struct VariableExpander<'a> {
    env: VariableLookup<'a>,
    budget: usize,
    findings: Vec<ConfigFinding>,
}

impl VariableExpander<'_> {
    fn node(&mut self, node: &mut YamlNode, path: &ConfigPath) {
        match &mut node.body {
            YamlValue::Scalar(scalar) => self.scalar(scalar, path),
            YamlValue::List(items) => items
                .iter_mut()
                .enumerate()
                .for_each(|(i, item)| self.node(item, &path.index(i))),
            YamlValue::Map(entries) => entries
                .iter_mut()
                .for_each(|(key, value)| self.node(value, &path.key(&*key.name))),
        }
    }

    fn scalar(&mut self, scalar: &mut YamlScalar, path: &ConfigPath) {
        if !scalar.text.contains('$') || self.findings.len() >= MAX_FINDINGS {
            return;
        }
        match substitute(&scalar.text, self.env) {
            Ok(text) if text.len() <= self.budget => {
                self.budget -= text.len();
                scalar.expanded = true;
                scalar.variables = names(&scalar.text);
                scalar.text = text;
            }
            Ok(_) => self.wrong(
                path,
                "variables make the file too large; expected at most 1 MiB of them",
            ),
            Err(message) => self.wrong(path, message),
        }
    }
}

impl VariableExpander<'_> {
    fn wrong(&mut self, path: &ConfigPath, message: impl Into<String>) {
        self.findings
            .push(ConfigFinding::value(path.clone(), message));
    }
}

/// The text of one scalar with its variables replaced, or the error.
pub fn substitute(text: &str, env: VariableLookup<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = inner
                .find('}')
                .ok_or("`${` without `}`; expected `${NAME}`, or `$$` for a dollar sign")?;
            out.push_str(&variable(&inner[..end], env)?);
            rest = &inner[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The names of the variables in a text that [`substitute`] takes, each once.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        rest = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some((inner, tail)) => {
                let name = inner.split(':').next().unwrap_or(inner);
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
                tail
            }
            None => after.strip_prefix('$').unwrap_or(after),
        };
    }
    names
}

/// The text that [`substitute`] makes this one of.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '$' && matches!(rest.peek(), Some('$' | '{')) {
            out.push('$');
        }
    }
    out
}

/// The value of the text between `${` and `}`.
fn variable(inner: &str, env: VariableLookup<'_>) -> Result<String, String> {
    let name_end = inner.find(':').unwrap_or(inner.len());
    let (name, rule) = inner.split_at(name_end);
    let good = name
        .chars()
        .enumerate()
        .all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
    if name.is_empty() || !good {
        return Err(format!(
            "`${{{inner}}}` names no variable; expected letters, digits and `_`, as in `${{PORT:-8080}}`"
        ));
    }
    let value = env(name);
    let filled = || value.clone().filter(|v| !v.is_empty());
    if let Some(default) = rule.strip_prefix(":-") {
        return Ok(filled().unwrap_or_else(|| default.to_owned()));
    }
    if let Some(message) = rule.strip_prefix(":?") {
        let reason = if message.is_empty() {
            "required"
        } else {
            message
        };
        return filled()
            .ok_or_else(|| format!("environment variable `{name}` is not set: {reason}"));
    }
    if !rule.is_empty() {
        return Err(format!(
            "`${{{inner}}}` is not understood; expected `${{{name}}}`, `${{{name}:-default}}` or `${{{name}:?message}}`"
        ));
    }
    value.ok_or_else(|| format!("environment variable `{name}` is not set; expected it, or a default as in `${{{name}:-value}}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("origin".to_owned()),
            "EMPTY" => Some(String::new()),
            "EVIL" => Some("x\nadmin: {token: \"\"} ${HOST} $$".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn each_form_expands_as_documented() {
        for (text, want) in [
            ("http://${HOST}:80", "http://origin:80"),
            ("${NONE:-a:b}", "a:b"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${HOST:?needed}", "origin"),
            ("$${HOST} $$ $5 $", "${HOST} $ $5 $"),
        ] {
            assert_eq!(substitute(text, &env).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn a_missing_or_misspelt_variable_is_explained() {
        for (text, want) in [
            ("${NONE}", "`NONE` is not set; expected it"),
            ("${EMPTY:?give a host}", "not set: give a host"),
            ("${NONE:?}", "not set: required"),
            ("${HOST", "without `}`"),
            ("${}", "names no variable"),
            ("${1A}", "names no variable"),
            ("${HOST:+x}", "is not understood"),
        ] {
            let message = substitute(text, &env).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn the_names_of_variables_are_told_once_each() {
        let text = "${A}:$${B} $ ${C:-$x}${A} $${";
        assert_eq!(names(text), ["A", "C"]);
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(substitute("${EVIL}", &env).ok(), env("EVIL"));
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_unchanged(text in "[^$]*") {
            prop_assert_eq!(substitute(&text, &env), Ok(text));
        }

        #[test]
        fn doubled_dollars_give_back_any_text(text in ".*") {
            prop_assert_eq!(substitute(&text.replace('$', "$$"), &env), Ok(text));
        }

        #[test]
        fn what_is_escaped_expands_to_any_text(text in "[a${}]*") {
            prop_assert_eq!(substitute(&escaped(&text), &env), Ok(text));
        }

        #[test]
        fn any_value_comes_out_as_it_is(value in ".+") {
            let given = value.clone();
            prop_assert_eq!(substitute("a${X}b", &move |_: &str| Some(given.clone())), Ok(format!("a{value}b")));
        }
    }
}
