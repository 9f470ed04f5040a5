//! Tools that a test needs and a machine may lack.

/// Says that a test does less than it could since `tool` is not here. On a developer's machine
/// that is a line on stderr; where `LAMINA_TOOLS=required` is set, as in `.ci/run`, it is a
/// failure: nothing is left out silently there.
///
/// # Panics
/// When tools are required.
pub fn is_missing(tool: &str, what_needs_it: &str) {
    let required = std::env::var("LAMINA_TOOLS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "{what_needs_it} needs {tool}, which is not here, and LAMINA_TOOLS=required"
    );
    eprintln!("skipped: {what_needs_it}, since {tool} is not here");
}
