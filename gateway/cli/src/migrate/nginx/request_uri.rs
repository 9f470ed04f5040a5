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

/// What is said where only the last part of a text is looked for.
const CUT: &str = "of a text that may run through path and query, or through parameters, the last part alone is looked for";

/// What an expression says of paths, and of parameters with their values.
#[derive(PartialEq, Eq, Debug)]
pub struct RequestUriPatterns {
    pub paths: Vec<String>,
    pub parameters: Vec<(String, String)>,
    case: ExpressionCase,
    difference: Option<&'static str>,
    places: OpenPlaces,
}

/// Whether the open places of an expression, where any of several characters may stand, may run from the
/// path into the query, or from one parameter into another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OpenPlaces {
    Crossing,
    WithinParts,
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
            places: match expression::may_hold(expression, "?&=") {
                true => OpenPlaces::Crossing,
                false => OpenPlaces::WithinParts,
            },
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

    /// Whether some text of the expression may stand partly in the path and partly in the query, or in
    /// several parameters, so that the patterns mean more requests than it does.
    pub fn are_cut(&self) -> bool {
        self.difference == Some(CUT)
    }

    fn add_alternative(&mut self, text: &str) {
        if let Some((path, query)) = text.split_once("\\?") {
            // The question mark itself is the end of the path.
            return match path.trim_start_matches('*') {
                "" => self.add_query(&format!("{START}{query}")),
                _ => self.add_path(&format!("{path}{END}")),
            };
        }
        if !text.starts_with(START) || text.starts_with("\u{1}/") || wild(text).is_some() {
            self.add_path(text);
        }
        // What begins with the path and has no open place is of the path alone.
        let may_cross = self.crossing(&without_open_end(text)).is_some();
        if !text.starts_with(START) || may_cross {
            self.add_query(text);
        }
    }

    /// Where the last place of a text is that may run from one part into another.
    fn crossing(&self, text: &str) -> Option<usize> {
        match self.places {
            OpenPlaces::Crossing => wild(text),
            OpenPlaces::WithinParts => None,
        }
    }

    fn add_path(&mut self, text: &str) {
        let path = open_ended(text);
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }

    /// A parameter with this text in its name or its value. What stands before an `&`, or before a place
    /// where anything may stand, is left out, since that may be in the path or in another parameter: so
    /// more requests are meant.
    fn add_query(&mut self, text: &str) {
        let mut text = without_open_end(text);
        if let Some((before, rest)) = text.rsplit_once('&') {
            let is_end = rest.chars().all(|c| c == END);
            if !before.is_empty() && !is_end {
                self.difference = Some(CUT);
            }
            text = match is_end {
                true => without_open_end(before),
                false => format!("{START}{rest}"),
            };
        }
        let Some(at) = self.crossing(&text) else {
            return self.add_pairs(&text);
        };
        self.difference = Some(CUT);
        let places = open_places(&text);
        if places.iter().any(|(_, place)| *place == '*') {
            return self.add_pairs(&text[at + 1..]);
        }
        // Each place is one character: of a part, or a mark, and then a part begins behind it.
        self.add_pairs(&text);
        for (at, _) in places {
            let begun = format!("{START}{}", &text[at + 1..]);
            self.add_pairs(&begun);
            self.add_pair("*".to_owned(), open_ended(&begun));
        }
    }

    /// Parameters with this text in them; at their beginning if it is anchored.
    fn add_pairs(&mut self, text: &str) {
        match text.split_once('=') {
            Some((name, value)) => {
                let name = open_ended(&format!("{name}{END}"));
                self.add_pair(name, open_ended(&format!("{START}{value}")));
            }
            None => self.add_pair(open_ended(text), "*".to_owned()),
        }
        if !text.starts_with(START) {
            self.add_pair("*".to_owned(), open_ended(text));
        }
    }

    fn add_pair(&mut self, name: String, value: String) {
        let name = match name.is_empty() {
            true => "*".to_owned(),
            false => name,
        };
        let pair = (name, value);
        if !self.parameters.contains(&pair) {
            self.parameters.push(pair);
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

    /// The spellings of a parameter's name.
    fn spelled_names(&self, name: &str) -> Vec<String> {
        match self.case {
            ExpressionCase::Told => vec![name.to_owned()],
            ExpressionCase::Ignored => names_in_any_case(name).0,
        }
    }
}

/// How the names of parameters differ where these are taken in letters of any case.
pub const ANY_LETTERS: &str = "names of parameters tell capital and small letters apart here, so that any \
                               character stands for each letter of the name";

/// The spellings of a parameter's name; if these are many, any character stands for each letter, which
/// is told.
pub fn names_in_any_case(name: &str) -> (Vec<String>, Option<&'static str>) {
    let list = PatternList {
        patterns: vec![name.to_owned()],
        meaning: PatternMeaning::Same,
        case: ExpressionCase::Ignored,
    };
    match list.spellings(MOST_SPELLED_NAMES) {
        Some(few) => (few, None),
        None => (list.any_spelling(), Some(ANY_LETTERS)),
    }
}

/// The open places of an alternative: each `*` or `?` that is not a letter, and where it is.
fn open_places(text: &str) -> Vec<(usize, char)> {
    let mut found = Vec::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '*' | '?' => found.push((at, c)),
            _ => {}
        }
    }
    found
}

/// Where the last of them is.
fn wild(text: &str) -> Option<usize> {
    open_places(text).last().map(|(at, _)| *at)
}

/// An alternative without open places at its end, which say nothing there.
fn without_open_end(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let body = text.trim_end_matches(END);
        match wild(body) {
            Some(at) if at + 1 == body.len() => text.truncate(at),
            _ => return text,
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
            &["*preview=true*", "*/admin/*"],
            &[
                ("*preview", "true*"),
                ("*", "*preview=true*"),
                ("*/admin/*", "*"),
                ("*", "*/admin/*"),
            ],
        );
        are(
            "add-to-cart=",
            &["*add-to-cart=*"],
            &[("*add-to-cart", "*"), ("*", "*add-to-cart=*")],
        );
        are("^/public/", &["/public/*"], &[]);
        are(r"(\?|&)s=", &["*&s=*"], &[("s", "*")]);
        are("^/i/[0-9]+/edit", &["/i/?*/edit*"], &[]);
        are(
            r"\.css(\?.*)?$",
            &["*.css"],
            &[("*.css", "*"), ("*", "*.css")],
        );
        are("cart", &["*cart*"], &[("*cart*", "*"), ("*", "*cart*")]);
        are(r"^/a\?b=1$", &["/a"], &[]);
        are("^/a=b", &["/a=b*"], &[]);
        are(r"^/wp-.*$", &["/wp-*"], &[]);
    }

    #[test]
    fn what_may_run_from_the_path_into_the_query_is_looked_for_in_both() {
        are(
            "/shop.*add-to-cart=",
            &["*/shop*add-to-cart=*"],
            &[("*add-to-cart", "*"), ("*", "*add-to-cart=*")],
        );
        are(
            "^/shop.*delete",
            &["/shop*delete*"],
            &[("*delete*", "*"), ("*", "*delete*")],
        );
        are("a=1.*b=2$", &["*a=1*b=2"], &[("*b", "2"), ("*", "*b=2")]);
        are(
            r"\?.*nocache=1",
            &[],
            &[("*nocache", "1*"), ("*", "*nocache=1*")],
        );
        are("a=1&b=2", &["*a=1&b=2*"], &[("b", "2*")]);
        are(
            "/a.php",
            &["*/a?php*"],
            &[
                ("*/a?php*", "*"),
                ("*", "*/a?php*"),
                ("php*", "*"),
                ("*", "php*"),
            ],
        );
        assert!(RequestUriPatterns::of_whole("/shop.*x=").unwrap().are_cut());
        assert!(!RequestUriPatterns::of_whole("/shop").unwrap().are_cut());
        assert!(RequestUriPatterns::of_query("a.*b").unwrap().are_cut());
    }

    #[test]
    fn names_of_parameters_have_letters_of_any_case() {
        let (names, lost) = names_in_any_case("a_1");
        assert_eq!(
            (names, lost),
            (vec!["A_1".to_owned(), "a_1".to_owned()], None)
        );
        let (names, lost) = names_in_any_case("no-cache");
        assert_eq!(
            (names, lost),
            (vec!["??-?????".to_owned()], Some(ANY_LETTERS))
        );
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
