//! The one pattern language of purges, routes and key rules, which every module may use. The
//! patterns in a plugin's manifest are narrower, see `plugin::names`.
//!
//! `*` matches any run of characters (also none, also `/` and newline), `?` matches one
//! character, `\` makes the next character literal; every other character stands for itself.
//! The matcher is linear in practice and O(text × pattern) at worst: client data never drives a
//! regular expression.

use std::fmt;

/// A compiled pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    source: Box<str>,
    form: PatternForm,
}

/// Nearly every pattern is a text or a prefix, which are fast to compare; routes do so on every
/// request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum PatternForm {
    Text(Box<str>),
    Prefix(Box<str>),
    Tokens(Box<[PatternToken]>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PatternToken {
    Run,
    One,
    Char(char),
}

impl Pattern {
    /// Compiles `source`; every text is a pattern (a trailing `\` stands for itself).
    pub fn new(source: &str) -> Self {
        Self {
            source: source.into(),
            form: PatternForm::of(tokens(source)),
        }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.form {
            PatternForm::Text(whole) => text == &**whole,
            PatternForm::Prefix(prefix) => text.starts_with(&**prefix),
            PatternForm::Tokens(tokens) => matches(tokens, text),
        }
    }

    /// The same for octets that need not be UTF-8: what is none of it is read as U+FFFD. Most patterns
    /// need no look at that.
    pub fn matches_octets(&self, octets: &[u8]) -> bool {
        match &self.form {
            PatternForm::Text(whole) => octets == whole.as_bytes(),
            PatternForm::Prefix(prefix) => octets.starts_with(prefix.as_bytes()),
            PatternForm::Tokens(tokens) => matches(tokens, &String::from_utf8_lossy(octets)),
        }
    }

    /// The text, if the pattern matches one text only.
    pub fn literal(&self) -> Option<&str> {
        match &self.form {
            PatternForm::Text(whole) => Some(whole),
            PatternForm::Prefix(_) | PatternForm::Tokens(_) => None,
        }
    }

    /// The prefix, if the pattern is a text and one `*` behind it.
    pub fn prefix(&self) -> Option<&str> {
        match &self.form {
            PatternForm::Prefix(prefix) => Some(prefix),
            PatternForm::Text(_) | PatternForm::Tokens(_) => None,
        }
    }

    /// A pattern that matches all that this one matches: the first `bytes` bytes of it at most, and
    /// a `*`. `None` if not even one character of it fits.
    pub fn shortened(&self, bytes: usize) -> Option<Self> {
        let mut end = 0;
        let mut is_escaped = false;
        for (at, c) in self.source.char_indices() {
            if at > bytes {
                break;
            }
            if !is_escaped {
                end = at;
            }
            is_escaped = !is_escaped && c == '\\';
        }
        let beginning = &self.source[..end];
        (!beginning.is_empty()).then(|| Self::new(&format!("{beginning}*")))
    }

    /// The text before the first wildcard. Everything that matches begins with it.
    pub fn beginning(&self) -> String {
        match &self.form {
            PatternForm::Text(text) | PatternForm::Prefix(text) => text.to_string(),
            PatternForm::Tokens(tokens) => {
                let chars = tokens.iter().map_while(|token| match token {
                    PatternToken::Char(c) => Some(*c),
                    PatternToken::Run | PatternToken::One => None,
                });
                chars.collect()
            }
        }
    }

    /// The text behind the last wildcard. Everything that matches ends with it.
    pub fn end(&self) -> String {
        match &self.form {
            PatternForm::Text(text) => text.to_string(),
            PatternForm::Prefix(_) => String::new(),
            PatternForm::Tokens(tokens) => {
                let is_char = |token: &PatternToken| matches!(token, PatternToken::Char(_));
                let wild = tokens.iter().rposition(|token| !is_char(token));
                let after = wild.map_or(0, |at| at + 1);
                let chars = tokens[after..].iter().filter_map(|token| match token {
                    PatternToken::Char(c) => Some(*c),
                    PatternToken::Run | PatternToken::One => None,
                });
                chars.collect()
            }
        }
    }

    /// Whether a text that matches still does with anything appended, because the pattern ends with
    /// a `*`.
    pub fn is_open(&self) -> bool {
        match &self.form {
            PatternForm::Text(_) => false,
            PatternForm::Prefix(_) => true,
            PatternForm::Tokens(tokens) => tokens.last() == Some(&PatternToken::Run),
        }
    }

    /// A pattern that matches this text and no other.
    pub fn exactly(text: &str) -> Self {
        let mut source = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '*' | '?' | '\\') {
                source.push('\\');
            }
            source.push(c);
        }
        Self::new(&source)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl PatternForm {
    fn of(tokens: Vec<PatternToken>) -> Self {
        let literal = |tokens: &[PatternToken]| -> Option<Box<str>> {
            let chars = tokens.iter().map(|token| match token {
                PatternToken::Char(c) => Some(*c),
                PatternToken::Run | PatternToken::One => None,
            });
            Some(chars.collect::<Option<String>>()?.into())
        };
        if let Some(whole) = literal(&tokens) {
            return Self::Text(whole);
        }
        let prefix = match tokens.split_last() {
            Some((PatternToken::Run, before)) => literal(before),
            _ => None,
        };
        prefix.map_or_else(|| Self::Tokens(tokens.into()), Self::Prefix)
    }
}

fn tokens(source: &str) -> Vec<PatternToken> {
    let mut tokens = Vec::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if tokens.last() == Some(&PatternToken::Run) => continue,
            '*' => PatternToken::Run,
            '?' => PatternToken::One,
            '\\' => PatternToken::Char(chars.next().unwrap_or('\\')),
            c => PatternToken::Char(c),
        });
    }
    tokens
}

fn matches(tokens: &[PatternToken], text: &str) -> bool {
    // Greedy with one backtrack point: on a mismatch only the last `*` has to take one character
    // more.
    let (mut token, mut rest) = (0, text);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let next = rest.chars().next();
        match (tokens.get(token), next) {
            (Some(PatternToken::Run), _) => {
                token += 1;
                retry = Some((token, rest));
                if token == tokens.len() {
                    return true;
                }
            }
            (Some(PatternToken::One), Some(c)) => {
                (token, rest) = (token + 1, &rest[c.len_utf8()..])
            }
            (Some(PatternToken::Char(want)), Some(c)) if *want == c => {
                (token, rest) = (token + 1, &rest[c.len_utf8()..])
            }
            (None, None) => return true,
            _ => {
                let Some((after, from)) = retry else {
                    return false;
                };
                let Some(c) = from.chars().next() else {
                    return false;
                };
                rest = &from[c.len_utf8()..];
                token = after;
                retry = Some((after, rest));
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_match_what_the_table_says() {
        for (pattern, text, want) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b\nc", true),
            ("/shop/*", "/shop/", true),
            ("/shop/*", "/shop", false),
            ("a?c", "abc", true),
            ("a?c", "a√c", true),
            ("a?c", "ac", false),
            (r"a\*c", "a*c", true),
            (r"a\*c", "abc", false),
            (r"a\", r"a\", true),
            ("*.example.com", "a.b.example.com", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                want,
                "{pattern:?} on {text:?}"
            );
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = Pattern::new(&"a*".repeat(200));
        let text = "a".repeat(20_000) + "b";
        assert!(pattern.matches(&text));
        assert!(!Pattern::new(&("a*".repeat(200) + "c")).matches(&text));
    }

    fn slow(tokens: &[PatternToken], text: &[char]) -> bool {
        match (tokens.first(), text.first()) {
            (None, None) => true,
            (Some(PatternToken::Run), _) => {
                slow(&tokens[1..], text) || (!text.is_empty() && slow(tokens, &text[1..]))
            }
            (Some(PatternToken::One), Some(_)) => slow(&tokens[1..], &text[1..]),
            (Some(PatternToken::Char(want)), Some(c)) => {
                want == c && slow(&tokens[1..], &text[1..])
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_definition(pattern in r"[ab*?\\]{0,8}", text in "[ab*]{0,10}") {
            let compiled = Pattern::new(&pattern);
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(compiled.matches(&text), slow(&tokens(&pattern), &chars));
        }

        #[test]
        fn what_an_open_pattern_matches_it_matches_with_anything_behind(pattern in r"[ab*?\\]{0,8}", text in "[ab*]{0,10}", more in "[ab*]{0,4}") {
            let compiled = Pattern::new(&pattern);
            if compiled.is_open() && compiled.matches(&text) {
                let longer = text + &more;
                prop_assert!(compiled.matches(&longer));
            }
            prop_assert_eq!(compiled.is_open(), tokens(&pattern).last() == Some(&PatternToken::Run));
        }

        #[test]
        fn octets_match_as_their_text_does(pattern in r"[ab*?\\]{0,8}", text in prop::collection::vec(prop::sample::select(&b"ab*\xff\xc3"[..]), 0..8)) {
            let compiled = Pattern::new(&pattern);
            prop_assert_eq!(compiled.matches_octets(&text), compiled.matches(&String::from_utf8_lossy(&text)));
        }

        #[test]
        fn an_escaped_text_matches_itself_alone(text in "\\PC{0,12}", other in "\\PC{0,12}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            let pattern = Pattern::new(&escaped);
            prop_assert!(pattern.matches(&text));
            prop_assert_eq!(pattern.matches(&other), other == text);
        }
    }
}
