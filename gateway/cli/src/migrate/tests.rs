//! Expressions as patterns, and texts as YAML.

use serde_json::json;

use super::draft::DraftMap;
use super::expression::{self, PatternMeaning};

#[track_caller]
fn paths(expression: &str) -> Vec<String> {
    expression::paths(expression).unwrap().patterns
}

#[test]
fn expressions_for_paths_become_patterns_that_say_the_same() {
    assert_eq!(paths("^/x$"), ["/x"]);
    assert_eq!(paths("^/x"), ["/x*"]);
    assert_eq!(paths("/x"), ["*/x*"]);
    assert_eq!(paths(r"\.(css|js)$"), ["*.css", "*.js"]);
    assert_eq!(paths(r"^[^?]*\.(jpe?g)(\?.*)?$"), ["*.jpg", "*.jpeg"]);
    assert_eq!(paths("^/admin([/?]|$).*$"), ["/admin/*", "/admin"]);
    assert_eq!(paths(r"^/a\*b$"), [r"/a\*b"]);
    assert_eq!(
        paths(r"^/a\*"),
        [r"/a\**"],
        "the second star is none of the text"
    );
    assert_eq!(paths("(?i)^/a/.+/b$"), ["/a/?*/b"]);
    assert_eq!(paths(r"^.+\.css$"), ["/*.css"]);
    assert_eq!(paths("^(a|/b)"), ["/b*"], "a path begins with a slash");
}

#[test]
fn what_matches_more_is_told_and_what_is_no_pattern_is_refused() {
    let list = expression::paths("^/[a-z]{2}/$").unwrap();
    assert_eq!(list.patterns, ["/??/"]);
    assert_eq!(list.meaning, PatternMeaning::Wider);
    assert!(list.difference().is_some());
    for refused in [
        r"\?page=2",
        "(?<=name)a",
        "(?!a)b",
        r"(a)\1",
        "(a",
        "a)",
        "[a",
        "a{2",
    ] {
        assert_eq!(expression::paths(refused), None, "{refused}");
    }
    let many = "(a|b|c|d|e|f|g|h)".repeat(3);
    assert_eq!(expression::paths(&many), None, "too many alternatives");
    let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
    assert_eq!(expression::paths(&deep), None, "too many groups");
    let long = format!("(a|b|c|d){}", "x".repeat(4000));
    assert_eq!(expression::paths(&long), None, "too long");
}

#[test]
fn names_of_cookies_and_parameters_are_cut_out_of_expressions() {
    let cookies = |text: &str| expression::cookie_names(text).unwrap().patterns;
    assert_eq!(cookies(r"(^|;\s*)(PHPSESSID|sid)="), ["PHPSESSID", "sid"]);
    assert_eq!(cookies("wordpress_logged_in"), ["*wordpress_logged_in*"]);
    assert_eq!(cookies(";(SESS[a-z]+|NO)="), ["SESS?*", "NO"]);
    let names = |text: &str| expression::parameter_names(text).unwrap().patterns;
    assert_eq!(names(r"(\?|&)(utm_[a-z]+|gclid)="), ["utm_?*", "gclid"]);
    assert_eq!(names("(mtm|matomo)_id="), ["mtm_id", "matomo_id"]);
}

#[test]
fn values_of_a_field_are_joined() {
    let mut map = DraftMap::default();
    map.add_value("bypass.header", "x-a", "*");
    map.add_value("bypass.header", "x-a", "*");
    assert_eq!(map.get("bypass.header"), Some(&json!({ "x-a": "*" })));
    map.add_value(
        "bypass.header",
        "x-a",
        json!({ "any": ["b"], "case": "ignore" }),
    );
    let both = json!({ "x-a": { "any": ["*", "b"], "case": "ignore" } });
    assert_eq!(map.get("bypass.header"), Some(&both));
}

#[test]
fn places_that_may_hold_a_mark_are_known() {
    for (text, holds) in [
        ("a.b", true),
        (r"a\.b", false),
        ("[a-z0-9_]+", false),
        ("[^/]*", true),
        ("[^?&=;]*", false),
        ("[!-~]", true),
        (r"\w+\d", false),
        (r"\S", true),
        (r"[\w&]", true),
        (r"[\W]", true),
        ("(a=)*", true),
        ("[]a]", false),
    ] {
        assert_eq!(expression::may_hold(text, "?&="), holds, "{text}");
    }
}
