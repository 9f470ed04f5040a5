//! The rules of the code that the compiler does not keep: who may import whom, and style.
//! Cargo keeps the arrows between crates; here it is looked after that they are those of
//! `ARCHITECTURE.md`.
//!
//! The table is read from the block under "Who may import whom" in `ARCHITECTURE.md`. Every
//! path that leads from one module of the gateway into another is an edge, whether it is
//! written as `crate::x`, inside a group, or with `super::`; test modules are left out.
//! Each rule also asserts how much it has judged, because a rule that looks at nothing
//! passes whatever the code says.

#[path = "architecture/code_text.rs"]
mod code_text;
#[path = "architecture/configuration.rs"]
mod configuration;
#[path = "architecture/crate_arrows.rs"]
mod crate_arrows;
#[path = "architecture/document.rs"]
mod document;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/sources.rs"]
mod sources;
#[path = "architecture/style.rs"]
mod style;
#[path = "architecture/type_names.rs"]
mod type_names;

/// The text of `ARCHITECTURE.md`.
fn architecture_document() -> String {
    let path = e2e::cli::repository().join("ARCHITECTURE.md");
    std::fs::read_to_string(path).unwrap()
}

/// The section that begins with this heading, up to the next one of its rank.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, section) = document
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no section {heading}"));
    section.split_once("\n## ").map_or(section, |(own, _)| own)
}

/// The lines of the first code block of a section that have something.
fn lines_of_block(section: &str) -> impl Iterator<Item = &str> {
    let block = section.split("```").nth(1).expect("it has a code block");
    block.lines().filter(|line| !line.trim().is_empty())
}

/// Fails with all faults, or because so little was judged that the rule must have gone blind.
fn assert_holds(faults: &[String], judged: usize, least: usize) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(
        judged >= least,
        "only {judged} were judged, and not {least}"
    );
}
