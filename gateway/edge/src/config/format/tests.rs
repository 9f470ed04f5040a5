//! Tests of the canonical form: what it is, that it means the same, and what is refused.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn canonical(text: &str) -> String {
    formatted(text, "x.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

#[track_caller]
fn becomes(text: &str, expected: &str) {
    let once = canonical(text);
    assert_eq!(once, expected);
    assert_eq!(canonical(&once), expected, "the second time");
}

#[test]
fn levels_are_of_two_spaces_and_lists_below_their_key() {
    becomes(
        "routes:\n-   name: a\n    match:\n        path:\n        - /a\n        -   /b\n\n-   name: b\n",
        "routes:\n  - name: a\n    match:\n      path:\n        - /a\n        - /b\n\n  - name: b\n",
    );
    becomes(
        "a:\n   -\n      b: 1\n      c:\n           - - 1\n             - 2\n",
        "a:\n  -\n    b: 1\n    c:\n      - - 1\n        - 2\n",
    );
}

#[test]
fn comments_stay_beside_what_they_are_about() {
    becomes(
        "# top\n\nroutes:   # all\n# first\n-   name: a  \n    # of it\n    upstream: o # its origin\n    #end\n# - name: gone\n\n# after\ncache: {}",
        "# top\n\n# after\ncache: {}\n\nroutes:   # all\n  # first\n  - name: a\n    # of it\n    upstream: o # its origin\n    #end\n# - name: gone\n",
    );
}

#[test]
fn top_level_keys_are_in_the_order_of_the_reference() {
    becomes(
        "# yaml-language-server: $schema=lamina.schema.json\nroutes: []\n\n# where from\nupstreams: {}\n\nversion: 1\nother: 2\n",
        "# yaml-language-server: $schema=lamina.schema.json\nversion: 1\n\n# where from\nupstreams: {}\n\nroutes: []\nother: 2\n",
    );
    let reference = include_str!("../../../../../config/reference.yaml");
    let keys = reference
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    assert_eq!(keys.map(key_of).collect::<Vec<_>>(), ORDER);
}

#[test]
fn a_text_with_aliases_keeps_its_order() {
    let text = "upstreams: { a: &a http://a, b: *a }\nversion: 1\n";
    becomes(text, text);
}

#[test]
fn flow_style_and_scalars_of_several_lines_are_kept() {
    becomes(
        "a:\n    b: { x: 1,\n         # why\n         y: [2,\n\n             3] }   \n    c: \"one  \n      two\"\n    d: one\n      two\n    e:\n        a text\n        on lines\n",
        "a:\n  b: { x: 1,\n       # why\n       y: [2,\n\n           3] }\n  c: \"one  \n    two\"\n  d: one\n    two\n  e:\n    a text\n    on lines\n",
    );
}

#[test]
fn lists_of_flow_collections_are_moved_item_by_item() {
    becomes(
        "a:\n# first\n- { b: 1 }\n- [1,\n   2]\nc:\n- [x]\nd: &e\n- {}\nf: &g [1,\n 2]\n",
        "a:\n  # first\n  - { b: 1 }\n  - [1,\n     2]\nc:\n  - [x]\nd: &e\n  - {}\nf: &g [1,\n 2]\n",
    );
}

#[test]
fn block_scalars_keep_their_text() {
    becomes(
        "a:\n    b: |\n        one  \n          two\n\n        three\n    # no text\n    c: >-\n     folded\n     text\n    d:\n    -   |+\n        kept\n\n    - |2\n         stated\n",
        "a:\n  b: |\n    one  \n      two\n\n    three\n  # no text\n  c: >-\n    folded\n    text\n  d:\n    - |+\n      kept\n\n    - |2\n         stated\n",
    );
}

#[test]
fn ends_of_lines_are_line_feeds_and_the_last_line_has_one() {
    becomes("a: 1\r\nb:\r\n    c: 2\r\n\r\n\r\n", "a: 1\nb:\n  c: 2\n");
    becomes("a: 1", "a: 1\n");
    becomes("\u{feff}a: 1 \n", "a: 1\n");
    becomes("---\na:\n    b: 1\n", "---\na:\n  b: 1\n");
}

#[test]
fn what_is_no_yaml_or_nothing_is_named_with_its_place() {
    for (text, expected) in [
        ("a: [", "x.yaml:1"),
        ("a: 1\na: 2\n", "x.yaml:2:1: a: given twice"),
        ("# nothing\n", "x.yaml: there is nothing but comments"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: a tab"),
    ] {
        let said = formatted(text, "x.yaml").unwrap_err().to_string();
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
}

#[test]
fn the_meaning_is_compared_by_values_and_quotes() {
    let tree = |text: &str| parser::parse(text).unwrap();
    let judged = |a: &str, b: &str| same(&tree(a), &tree(b), TreeDepth::Top).is_ok();
    assert!(judged("a: 1\nb: [x]\n", "b:\n- x\na: 1\n"));
    for (a, b) in [
        ("a: 1", "a: \"1\""),
        ("a: 1", "a: 2"),
        ("a: {b: 1, c: 2}", "a: {c: 2, b: 1}"),
        ("a: [1]", "a: [1, 2]"),
        ("a: 1", "b: 1"),
        ("a: 1", "a: 1\nb: 2"),
    ] {
        assert!(!judged(a, b), "{a} {b}");
    }
    assert_ne!(line_set("a: 1 # x\n"), line_set("a: 1\n"));
}

#[test]
fn shipped_files_are_canonical() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let examples = std::fs::read_dir(config.join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path());
    let mut judged = 0;
    for file in examples.chain([
        config.join("quickstart.yaml"),
        config.join("reference.yaml"),
    ]) {
        if file.extension().is_some_and(|end| end == "yaml") {
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(canonical(&text), text, "{}", file.display());
            judged += 1;
        }
    }
    assert!(judged >= 10, "only {judged} files were judged");
}

/// Lines as people write them, in any indentation.
fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => "(- ){0,2}[a-d]: ?(1|x y|\"q #\"|)",
        2 => "(-  ?){1,2}(x|[a-d]: 1)",
        1 => "[a-d]: [|>][+-]?",
        1 => "[a-d]: [{\\[]",
        1 => "  ?[a-c]: 1,|[}\\]]",
        1 => "# note ?",
        1 => " *",
    ];
    prop::collection::vec((0usize..7, line), 1..9).prop_map(|lines| {
        let lines = lines
            .into_iter()
            .map(|(n, line)| format!("{}{line}", " ".repeat(n)));
        lines.collect::<Vec<_>>().join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// What is formatted means the same, has lost no line, and does not change again.
    #[test]
    fn any_text_keeps_its_meaning(text in lines()) {
        let Ok(once) = formatted(&text, "x.yaml") else {
            return Ok(());
        };
        let (before, after) = (parser::parse(&text), parser::parse(&once));
        let (Ok(before), Ok(after)) = (before, after) else {
            return Err(TestCaseError::fail("it is YAML no more"));
        };
        prop_assert!(same(&before, &after, TreeDepth::Top).is_ok());
        let twice = formatted(&once, "x.yaml").map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&once, &twice);
        prop_assert!(once.lines().all(|line| !line.ends_with(' ') || text.contains(['|', '>'])), "{:?}", once);
    }
}
