//! The configuration: any text is read or explained, in bounded time, what is shown reads back,
//! and no message repeats a secret.
//!
//! Input: the text of a file.

use lamina_edge::config::{ConfigProblem, parse, redacted};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Files that it names are read: none of this machine's.
    if text.contains("_file") || text.contains("include") {
        return;
    }
    for key in [
        "token: ",
        "'api-key' : ",
        "- { x_password: ",
        "secret: |\n    ",
        "token:\n      ",
    ] {
        hidden(text, key);
    }
    match parse(text, "/nowhere/lamina.yaml", &variable) {
        Ok(config) => shown(&redacted(&config)),
        Err(problems) => {
            let message = problems.to_string();
            assert!(
                !message.is_empty() && message.len() < 400_000,
                "{}",
                message.len()
            );
            problems.iter().for_each(|problem| placed(problem, text));
        }
    }
}

/// What stands behind the key of a secret is never repeated, whatever stands before it.
fn hidden(text: &str, key: &str) {
    const SECRET: &str = "Zq8w3cretZq8w";
    let text = format!("{text}\nadmin:\n  {key}{SECRET}\n");
    if let Err(problems) = parse(&text, "/nowhere/lamina.yaml", &variable) {
        let message = problems.to_string();
        assert!(!message.contains(SECRET), "{message}");
    }
}

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".to_owned()),
        "EMPTY" => Some(String::new()),
        "ODD" => Some("a: [\n- \"${PORT} $$".to_owned()),
        _ => None,
    }
}

/// A redacted configuration is a configuration, and has no secrets left to hide.
fn shown(first: &str) {
    if first.contains('$') {
        // It would be expanded once more.
        return;
    }
    match parse(first, "/nowhere/lamina.yaml", &|_| None) {
        Ok(config) => assert_eq!(redacted(&config), first),
        Err(problems) => panic!("{problems}\n{first}"),
    }
}

/// A problem names a place that is in the text.
fn placed(problem: &ConfigProblem, text: &str) {
    assert!(!problem.message.is_empty());
    if let Some((line, column)) = problem.position {
        let lines = text.split(['\n', '\r']).count();
        assert!(
            line >= 1 && column >= 1 && line <= lines + 1,
            "{line}:{column} of {lines}"
        );
    }
}
