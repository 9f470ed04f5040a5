//! Broken, huge and odd files.

use proptest::prelude::*;

use super::*;

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    says(
        &file("server:\n\tthreads: 2\n"),
        "12:1: a tab in the indentation; YAML is indented with spaces",
    );
    says(
        &file("    tags: [a, b\n"),
        "11:16: not valid YAML: while parsing a flow sequence, expected ',' or ']'; the file ends here",
    );
    says(
        &file("admin:\n  token: \"abc\n"),
        "12:10: not valid YAML: while scanning a quoted scalar",
    );
    says(
        &file("server: { threads: ${N} }\n"),
        "11:21: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'; inside { } and [ ] put quotes",
    );
    says(
        &file("a: b: c\n"),
        "11:5: not valid YAML: mapping values are not allowed in this context",
    );
    says(
        &file("    tags: [a]\n    tags: [b]\n"),
        "12:5: routes[0].tags: given twice, first in line 11; expected once",
    );
    says(
        &file("server: !custom {}\n"),
        "11:9: server: the YAML tag `!custom` is not supported",
    );
    says(
        &file("server: {<<: {}}\n"),
        "11:10: server.\"<<\": merge keys are not supported",
    );
    says(&file("---\nversion: 1\n"), "11:1: a second YAML document");
    says("- a\n", "1:1: not a mapping");
    says("", " the file is empty");
    says("# nothing yet\n", " the file is empty");
    says("~", "1:1: not a mapping");
}

#[test]
fn a_file_cut_at_any_place_is_read_or_explained() {
    for end in (0..QUICKSTART.len()).filter(|end| QUICKSTART.is_char_boundary(*end)) {
        sound(&QUICKSTART[..end]);
    }
}

#[test]
fn aliases_and_nesting_without_end_are_refused_quickly() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..40 {
        let one = format!("*a{}, ", i - 1);
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", one.repeat(10)));
    }
    assert!(
        said(&laughs)[0].contains("too large") || said(&laughs)[0].contains("too much"),
        "{:?}",
        said(&laughs)
    );
    for deep in [
        "[".repeat(200_000),
        "{a: ".repeat(100_000),
        "- ".repeat(200_000),
    ] {
        assert!(
            said(&deep)[0].contains("nested too deep"),
            "{}",
            said(&deep)[0]
        );
    }
    assert!(said("a: &a [*a]\n")[0].contains("inside the value that it names"));
}

#[test]
fn a_full_sized_file_with_endless_mistakes_is_answered_with_the_first_hundred() {
    let routes: String = (0..25_000)
        .map(|i| format!("  - {{ name: r{i}, upstream: x }}\n"))
        .collect();
    assert_eq!(read(&file(&routes)).unwrap_err().count(), 100);
    let tags = "      - ${NONE}\n".repeat(60_000);
    assert_eq!(
        read(&file(&format!("    tags:\n{tags}")))
            .unwrap_err()
            .count(),
        100
    );
}

#[test]
fn aliases_within_reason_work() {
    let text = file("    policy: &p { ttl: 5s }\ndefaults: *p\n");
    assert_eq!(
        read(&text).unwrap().defaults.policy.ttl,
        Some(crate::units::ConfigDuration::secs(5))
    );
}

#[test]
fn size_and_encoding_are_checked_before_parsing() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("c.yaml");
    std::fs::write(&name, vec![b'#'; 50 << 20]).unwrap();
    assert!(
        load(&name)
            .unwrap_err()
            .to_string()
            .ends_with(": larger than 1 MiB; expected a configuration file")
    );
    std::fs::write(&name, b"version: 1\nx: \xff\xfe\n").unwrap();
    let message = load(&name).unwrap_err().to_string();
    assert!(message.contains("c.yaml:2:4: not UTF-8"), "{message}");
    assert!(
        load(&dir.path().join("none.yaml"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let text = format!("\u{feff}{}", file("").replace('\n', "\r\n"));
    assert!(read(&text).is_ok(), "{:?}", said(&text));
}

/// Whatever the text is: no panic, and all positions are inside the file.
fn sound(text: &str) {
    let Err(problems) = read(text) else { return };
    let lines: Vec<&str> = excerpt::lines(text.strip_prefix('\u{feff}').unwrap_or(text)).collect();
    assert!(problems.count() > 0);
    for problem in problems.iter() {
        let Some((line, column)) = problem.position else {
            continue;
        };
        assert!(line >= 1 && line <= lines.len(), "{problem}");
        let width = lines[line - 1].chars().count();
        assert!(column >= 1 && column <= width + 1, "{width} {problem}");
        assert!(!problem.message.is_empty());
    }
}

/// One change to a text.
#[derive(Clone, Debug)]
enum Change {
    Cut(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let len = QUICKSTART.len();
    let junk = prop_oneof![
        proptest::sample::select(vec![
            "\t",
            "\n",
            "  ",
            ": ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "'",
            "#",
            "&a ",
            "*a",
            "!x ",
            "|\n",
            ">\n",
            "?",
            "<<",
            "%",
            "---\n",
            "${",
            "}",
            "$$",
            "\r",
            "\0",
            "é",
            "\u{2028}",
            "99999999999999999999",
            "-1",
            "null",
            "1e999"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    prop_oneof![
        (0..len, 0..40usize).prop_map(|(at, n)| Change::Cut(at, n)),
        (0..len, junk).prop_map(|(at, text)| Change::Insert(at, text)),
        (0..len, 0..80usize).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn mutate(changes: &[Change]) -> String {
    let mut text: Vec<char> = QUICKSTART.chars().collect();
    for change in changes {
        let place = |at: &usize, n: usize, len: usize| ((*at).min(len), (at + n).min(len));
        match change {
            Change::Cut(at, n) => {
                let (from, to) = place(at, *n, text.len());
                text.drain(from..to);
            }
            Change::Insert(at, junk) => {
                let (from, _) = place(at, 0, text.len());
                text.splice(from..from, junk.chars());
            }
            Change::Repeat(at, n) => {
                let (from, to) = place(at, *n, text.len());
                let piece = text[from..to].to_vec();
                text.splice(from..from, piece);
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        sound(&text);
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([a-z]{0,3}[:\\-\\[\\]{},&*!|>'\"%@`#?~$ \n\t]{0,3}){0,30}") {
        sound(&text);
    }

    #[test]
    fn a_mutated_file_is_read_or_explained_inside_the_file(changes in proptest::collection::vec(change(), 1..6)) {
        sound(&mutate(&changes));
    }

    /// The parser of our tree and `serde_yaml` may differ in what they accept, but never in what
    /// they read, except where `serde_yaml` still follows YAML 1.1: Unicode's line breaks,
    /// `{ ?a: 1 }`, names of anchors.
    #[test]
    fn both_yaml_parsers_read_the_same(changes in proptest::collection::vec(change(), 0..3)) {
        let text = mutate(&changes).replace(['\u{85}', '\u{2028}', '\u{2029}', '?', '&'], "");
        let ours = parser::parse(&text).ok().and_then(|root| de::read::<serde_json::Value>(&root).ok());
        let theirs = serde_yaml::from_str::<serde_json::Value>(&text).ok();
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
