//! Paths: the normal form is its own, rules and readings stay in it, and texts that select
//! paths get the form that the paths have.
//!
//! Input: lines, each a path with its query, or a text that selects paths.

use http::Uri;
use lamina_base::pattern::Pattern;
use lamina_http::path::{
    EscapedSlash, PathRules, RepeatedSlashes, arrive, normal, readings, remove_dot_segments, text,
};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    for line in input::texts(data).take(16) {
        selects(line);
        let line = format!("/{line}");
        target(&line);
    }
}

fn target(line: &str) {
    let form = normal(line);
    assert_eq!(normal(&form), form, "{line}");
    assert_eq!(text::whole(&form), form, "{line}");
    assert!(form.starts_with('/') && form.is_ascii(), "{line}");
    let path = form.split('?').next().unwrap_or_default();
    assert_eq!(remove_dot_segments(path), path, "{line}");
    if let Ok(mut uri) = line.parse::<Uri>()
        && !line.contains('#')
        && arrive(&mut uri).is_ok()
    {
        assert_eq!(
            uri.path_and_query().map(|target| target.as_str()),
            Some(&*form)
        );
    }
    let rules = PathRules {
        slashes: RepeatedSlashes::Merge,
        escaped_slash: EscapedSlash::Decode,
        ..PathRules::default()
    };
    let shaped = rules.shape(path).path;
    assert!(!shaped.contains("//") && !shaped.contains("%2F"), "{line}");
    for other in readings(path)
        .unwrap_or_default()
        .iter()
        .chain([&shaped.into_owned()])
    {
        assert_eq!(normal(other), **other, "{line}");
    }
    let exactly = Pattern::exactly(line);
    let selected = Pattern::new(&text::pattern(exactly.as_str()));
    assert_eq!(selected.literal(), Some(&*form), "{line}");
}

/// What selects paths is read once and for all.
fn selects(line: &str) {
    for of in [text::whole, text::beginning, text::pattern] {
        let form = of(line);
        assert_eq!(of(&form), form, "{line}");
    }
    text::of_octets(line.as_bytes());
}
