//! Patterns: they match what their definition says, computed here by a table.
//!
//! Input: a line with the pattern, then the text.

use lamina_base::pattern::Pattern;

pub fn check(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else {
        return;
    };
    let (source, text) = input.split_once('\n').unwrap_or((input, ""));
    let pattern = Pattern::new(source);
    let matched = pattern.matches(text);
    if source.len() * text.len() < 1 << 16 {
        assert_eq!(
            matched,
            by_definition(source, text),
            "{source:?} on {text:?}"
        );
    }
    let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
    assert!(
        Pattern::new(&escaped).matches(text),
        "a text escaped matches itself"
    );
    assert!(Pattern::new("*").matches(text));
    assert_eq!(
        (pattern.as_str(), pattern.to_string().as_str()),
        (source, source)
    );
    if matched {
        assert!(
            Pattern::new(&format!("*{source}")).matches(text),
            "a star more matches no less"
        );
        if trailing_backslashes(source).is_multiple_of(2) {
            assert!(Pattern::new(&format!("{source}*")).matches(&format!("{text}more")));
        }
    }
}

fn trailing_backslashes(source: &str) -> usize {
    source.len() - source.trim_end_matches('\\').len()
}

/// Which beginnings of the pattern match which beginnings of the text, a row a character.
fn by_definition(source: &str, text: &str) -> bool {
    let tokens = tokens(source);
    let mut row: Vec<bool> = std::iter::once(true)
        .chain(tokens.iter().scan(true, |all, token| {
            *all &= *token == Token::Run;
            Some(*all)
        }))
        .collect();
    for c in text.chars() {
        let mut next = vec![false; row.len()];
        for (i, token) in tokens.iter().enumerate() {
            next[i + 1] = match token {
                Token::Run => next[i] || row[i + 1],
                Token::One => row[i],
                Token::Char(want) => row[i] && *want == c,
            };
        }
        row = next;
    }
    row.last() == Some(&true)
}

#[derive(PartialEq)]
enum Token {
    Run,
    One,
    Char(char),
}

fn tokens(source: &str) -> Vec<Token> {
    let mut chars = source.chars();
    std::iter::from_fn(|| {
        Some(match chars.next()? {
            '*' => Token::Run,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            c => Token::Char(c),
        })
    })
    .collect()
}
