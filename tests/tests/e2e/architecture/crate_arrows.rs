//! What a crate depends on: the gateway's among themselves, and those that tests are built from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::sources::{collect, crates};
use super::{architecture_document, assert_holds, lines_of_block, section};

/// The least that fuzz targets have; far fewer means that the rule looks at nothing.
const MIN_LINKS: usize = 6;

/// The arrows between crates are Cargo's dependencies, and those that the document draws.
#[test]
fn crates_depend_on_each_other_as_the_document_says() {
    let document = architecture_document();
    let mut drawn = BTreeMap::new();
    for line in lines_of_block(section(&document, "## Crates")) {
        let (name, rest) = line.split_once(' ').expect("a line begins with a crate");
        let (_, arrows) = rest.rsplit_once('→').expect("a line has an arrow");
        let arrows = arrows.split_whitespace().filter(|word| *word != "nothing");
        drawn.insert(
            name.to_owned(),
            arrows.map(str::to_owned).collect::<BTreeSet<_>>(),
        );
    }
    let mut built = BTreeMap::new();
    for name in crates() {
        let manifest = e2e::cli::repository()
            .join("gateway")
            .join(&name)
            .join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        let lines = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("lamina-"));
        let others = lines.filter_map(|line| line.split_once(".workspace"));
        let others = others.map(|(other, _)| other.trim_end_matches("-host").to_owned());
        built.insert(name, others.collect::<BTreeSet<_>>());
    }
    assert_eq!(built, drawn);
    assert_eq!(built.len(), 7, "{built:?}");
}

/// A package of fuzz targets links the crates that its laws name, and no other crate of ours.
#[test]
fn fuzz_targets_link_what_they_test() {
    let fuzz = e2e::cli::repository().join("tests/fuzz");
    let (mut faults, mut judged) = (Vec::new(), 0);
    for crate_name in crates().iter().filter(|name| *name != "cli") {
        let folder = fuzz.join(crate_name);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let mut files = Vec::new();
        collect(&folder.join("src"), &mut files);
        let code: String = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let linked = dependencies
            .lines()
            .filter_map(|line| line.split('.').next());
        for linked in linked.filter(|name| name.starts_with("lamina-")) {
            judged += 1;
            if !code.contains(&format!("{}::", linked.replace('-', "_"))) {
                faults.push(format!(
                    "fuzz-{crate_name} links {linked} and does not name it"
                ));
            }
        }
    }
    assert_holds(&faults, judged, MIN_LINKS);
}
