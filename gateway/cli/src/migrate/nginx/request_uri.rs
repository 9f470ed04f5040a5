//! Expressions about `$request_uri`, which is the path with the query, and about `$args`. Lamina has
//! conditions for each of both, so each alternative of an expression is about one of them or, where
//! it may be found in either, about both.

use serde_json::json;

use super::super::draft::DraftMap;
use super::super::expression::{
    self, CASE_IS_LOST, END, ExpressionCase, PatternList, PatternMeaning, START,
};

/// The most patterns for paths that one condition becomes where capital and small letters are the same.
const MOST_SPELLINGS: usize = 64;
/// The same for the name of one parameter.
const MOST_SPELLED_NAMES: usize = 8;

/// What an expression says of paths, and of parameters with their values.
#[derive(PartialEq, Eq, Debug)]
pub struct RequestUriPatterns {
    pub paths: Vec<String>,
    pub parameters: Vec<(String, String)>,
    case: ExpressionCase,
    difference: Option<&'static str>,
}

impl RequestUriPatterns {
    /// Those for `$request_uri`.
    pub fn of_whole(expression: &str) -> Option<Self> {
        Self::of(expression, Self::add_alternative)
    }

    /// Those for `$args`.
    pub fn of_query(expression: &str) -> Option<Self> {
        Self::of(expression, Self::add_query)
    }

    fn of(expression: &str, add: impl Fn(&mut Self, &str)) -> Option<Self> {
        let list = expression::alternatives(expression)?;
        let mut found = Self {
            paths: Vec::new(),
            parameters: Vec::new(),
            case: list.case,
            difference: None,
        };
        if list.meaning == PatternMeaning::Wider {
            found.difference = Some("the patterns match a little more than the expression");
        }
        for text in &list.patterns {
            add(&mut found, text);
        }
        Some(found)
    }

    /// The same without a difference of capital and small letters.
    pub fn ignoring_case(mut self) -> Self {
        self.case = ExpressionCase::Ignored;
        self
    }

    fn add_alternative(&mut self, text: &str) {
        if let Some((path, query)) = text.split_once("\\?") {
            // The question mark itself is the end of the path.
            match path.trim_start_matches('*') {
                "" => self.add_query(&format!("{START}{query}")),
                _ => self.add_path(&format!("{path}{END}")),
            }
        } else if text.contains(['=', '&']) {
            self.add_query(text);
        } else if text.starts_with(START) {
            self.add_path(text);
        } else {
            self.add_path(text);
            self.add_query(text);
        }
    }

    fn add_path(&mut self, text: &str) {
        let path = open_ended(text);
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }

    /// A parameter with this text in its name or its value; what stands before an `&` is left out, so
    /// that more requests are meant.
    fn add_query(&mut self, text: &str) {
        let text = text
            .rsplit_once('&')
            .map_or(text.to_owned(), |(before, rest)| match rest {
                "" | "*" => before.to_owned(),
                rest => format!("{START}{rest}"),
            });
        let pair = |name: &str, value: &str| (open_ended(name), open_ended(value));
        let pairs = match text.split_once('=') {
            Some((name, value)) => vec![pair(&format!("{name}{END}"), &format!("{START}{value}"))],
            None => vec![
                (open_ended(&text), "*".to_owned()),
                ("*".to_owned(), open_ended(&text)),
            ],
        };
        for (name, value) in pairs {
            let name = if name.is_empty() {
                "*".to_owned()
            } else {
                name
            };
            let pair = (name, value);
            if !self.parameters.contains(&pair) {
                self.parameters.push(pair);
            }
        }
    }

    /// Adds them to `bypass`; how that differs.
    pub fn add_to_bypass(&self, route: &mut DraftMap) -> Option<&'static str> {
        let (paths, lost) = spelled_out(&self.paths, self.case);
        for path in paths {
            route.add("bypass.path", path);
        }
        // Where any query passes, nothing has to be said of single parameters.
        let passes_anyhow = route
            .get("bypass.query")
            .is_some_and(|query| query.get("*").is_some_and(|value| value == "*"));
        let parameters = self.parameters.iter().filter(|_| !passes_anyhow);
        for (name, value) in parameters {
            let case = match self.case {
                ExpressionCase::Told => "exact",
                ExpressionCase::Ignored => "ignore",
            };
            let value = match value.as_str() {
                "*" => json!("*"),
                value => json!({ "any": [value], "case": case }),
            };
            for name in self.spelled_names(name) {
                route.add_value("bypass.query", &name, value.clone());
            }
        }
        lost.or(self.difference)
    }

    /// The spellings of a parameter's name; if these are many, any character stands for each letter.
    fn spelled_names(&self, name: &str) -> Vec<String> {
        let list = PatternList {
            patterns: vec![name.to_owned()],
            meaning: PatternMeaning::Same,
            case: self.case,
        };
        match self.case {
            ExpressionCase::Told => list.patterns,
            ExpressionCase::Ignored => {
                let few = list.spellings(MOST_SPELLED_NAMES);
                few.unwrap_or_else(|| list.any_spelling())
            }
        }
    }
}

/// Patterns with the spellings that they need where case is ignored, and what is lost if these are
/// too many.
pub fn spelled_out(
    patterns: &[String],
    case: ExpressionCase,
) -> (Vec<String>, Option<&'static str>) {
    let list = PatternList {
        patterns: patterns.to_vec(),
        meaning: PatternMeaning::Same,
        case,
    };
    match case {
        ExpressionCase::Told => (list.patterns, None),
        ExpressionCase::Ignored => match list.spellings(MOST_SPELLINGS) {
            Some(all) => (all, None),
            None => (list.usual_spellings(), Some(CASE_IS_LOST)),
        },
    }
}

/// A pattern for a whole text out of an alternative, which may be anchored.
fn open_ended(text: &str) -> String {
    let before = if text.contains(START) { "" } else { "*" };
    let after = if text.contains(END) { "" } else { "*" };
    let body: String = text.chars().filter(|c| ![START, END].contains(c)).collect();
    expression::simple(&format!("{before}{body}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn are(expression: &str, paths: &[&str], parameters: &[(&str, &str)]) {
        let found = RequestUriPatterns::of_whole(expression).unwrap();
        assert_eq!(found.paths, paths, "{expression}");
        let pairs = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(found.parameters, pairs.collect::<Vec<_>>(), "{expression}");
    }

    #[test]
    fn each_alternative_is_about_the_path_or_the_query() {
        are(
            "preview=true|/admin/",
            &["*/admin/*"],
            &[
                ("*preview", "true*"),
                ("*/admin/*", "*"),
                ("*", "*/admin/*"),
            ],
        );
        are("add-to-cart=", &[], &[("*add-to-cart", "*")]);
        are("^/public/", &["/public/*"], &[]);
        are(r"(\?|&)s=", &[], &[("s", "*")]);
        are(
            r"\.css(\?.*)?$",
            &["*.css"],
            &[("*.css", "*"), ("*", "*.css")],
        );
        are("cart", &["*cart*"], &[("*cart*", "*"), ("*", "*cart*")]);
        are(r"^/a\?b=1$", &["/a"], &[]);
    }

    #[test]
    fn spellings_that_are_lost_are_told() {
        let mut route = DraftMap::default();
        let list = RequestUriPatterns::of_whole("^/administrator")
            .unwrap()
            .ignoring_case();
        assert_eq!(list.add_to_bypass(&mut route), Some(CASE_IS_LOST));
        let list = RequestUriPatterns::of_whole("^/ab")
            .unwrap()
            .ignoring_case();
        let mut route = DraftMap::default();
        assert_eq!(list.add_to_bypass(&mut route), None);
        assert_eq!(
            route.get("bypass.path"),
            Some(&json!(["/AB*", "/Ab*", "/aB*", "/ab*"]))
        );
    }
}
