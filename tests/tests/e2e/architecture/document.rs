//! `ARCHITECTURE.md` against the files that it names: its paths, its table of modules, its tour.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::code_text::names_word;
use super::sources::{SourceFile, sources};
use super::{architecture_document, assert_holds, section};

/// The least that the document has of each; far fewer means that a rule looks at nothing.
const MIN_PATHS: usize = 350;
const MIN_FILES_IN_TABLE: usize = 250;
const QUESTIONS: usize = 10;

/// One question of the tour: the table that the reader looks at first, and where it is answered.
struct TourQuestion<'a> {
    table: &'a str,
    answer: &'a str,
}

impl<'a> TourQuestion<'a> {
    /// The questions of the document's tour, one for each row that has a question mark.
    fn all(document: &'a str) -> Vec<Self> {
        let tour = section(
            document,
            "## A tour: ten questions, and where the answer is",
        );
        let rows = tour.lines().filter(|line| line.contains('?'));
        rows.map(|row| {
            let columns: Vec<_> = row.split('|').map(str::trim).collect();
            Self {
                table: columns[2],
                answer: columns[3],
            }
        })
        .collect()
    }

    /// What the reader finds at the first step: a row of a table, or an invariant.
    fn first_step<'d>(&self, document: &'d str) -> Result<&'d str, String> {
        let begins_with = |beginning: String| {
            let mut lines = document.lines();
            lines.find(|line| line.replace("**", "").starts_with(&beginning))
        };
        let found = if let Some((_, step)) = self.table.split_once('"') {
            begins_with(format!("| {}", step.trim_end_matches('"')))
        } else if let Some(module) = self.table.strip_prefix("modules, ") {
            begins_with(format!("| {module} |"))
        } else {
            let number = self.table.strip_prefix("invariant ").unwrap_or_default();
            begins_with(format!("{number}. "))
        };
        found.ok_or_else(|| format!("the document has no {}", self.table))
    }

    /// The files that decide, and the names that stand in one of them.
    fn files_and_names(&self) -> (Vec<&'a str>, Vec<&'a str>) {
        let quoted = self.answer.split('`').skip(1).step_by(2);
        quoted.partition(|word| word.ends_with(".rs"))
    }

    /// What keeps a reader from the answer.
    fn faults(&self, document: &str, sources: &[SourceFile]) -> Vec<String> {
        let mut faults = Vec::new();
        let (files, names) = self.files_and_names();
        let code: String = sources
            .iter()
            .filter(|source| files.iter().any(|file| source.path == Path::new(file)))
            .map(|source| source.code.as_str())
            .collect();
        match self.first_step(document) {
            Ok(step) => faults.extend(
                files
                    .iter()
                    .filter(|file| !leads_to(step, file))
                    .map(|file| format!("{} does not lead to {file}", self.table)),
            ),
            Err(fault) => faults.push(fault),
        }
        if names.is_empty() {
            faults.push(format!("{} names nothing to look for", self.answer));
        }
        let defined = |name: &str| {
            names_word(&code, &format!(" {name}")) || code.contains(&format!(" {name}("))
        };
        let missing = names.iter().filter(|name| !defined(name));
        faults.extend(missing.map(|name| format!("{}: {name} is not there", self.answer)));
        faults
    }
}

/// Whether a row names the file by its path, or, as the table of modules does, by its name.
fn leads_to(row: &str, file: &str) -> bool {
    let mut quoted = row.split('`').skip(1).step_by(2);
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
    let mut words = row.split(|c: char| !c.is_alphanumeric() && c != '_');
    quoted.any(|path| alternatives(path).iter().any(|one| one == file))
        || words.any(|word| Some(word) == stem)
}

/// A reader finds each answer in two steps: a row of a table, which names the file, and there what
/// is named.
#[test]
fn the_tour_ends_where_it_says() {
    let document = architecture_document();
    let questions = TourQuestion::all(&document);
    let sources = sources();
    let faults: Vec<_> = questions
        .iter()
        .flat_map(|question| question.faults(&document, &sources))
        .collect();
    assert_holds(&faults, questions.len(), QUESTIONS);
}

/// Each file that the document names is there.
#[test]
fn every_path_of_the_document_exists() {
    let document = architecture_document();
    let sources: BTreeSet<PathBuf> = sources().into_iter().map(|source| source.path).collect();
    let (mut faults, mut judged) = (Vec::new(), 0);
    let quoted = document.split('`').skip(1).step_by(2);
    for path in quoted.filter(|quoted| quoted.ends_with(".rs") && !quoted.contains(' ')) {
        for path in alternatives(path) {
            judged += 1;
            let is_source = sources.contains(Path::new(&path));
            if !is_source && !e2e::cli::repository().join(&path).exists() && path != "foo.rs" {
                faults.push(format!("there is no {path}"));
            }
        }
    }
    assert_holds(&faults, judged, MIN_PATHS);
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let (group, after) = rest.split_once('}').expect("a brace is closed");
    let paths = group
        .split(',')
        .flat_map(|one| alternatives(&format!("{before}{one}{after}")));
    paths.collect()
}

/// The table of modules names each file that lies directly in a module's folder.
#[test]
fn every_file_of_a_module_is_in_the_table() {
    let document = architecture_document();
    let sources = sources();
    let (mut faults, mut judged) = (Vec::new(), 0);
    let modules = section(&document, "## Modules");
    for row in modules.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').collect();
        let names: Vec<_> = cells[1].split('`').skip(1).step_by(2).collect();
        let [module] = names[..] else { continue };
        let said = cells[2..].join(" ");
        let said: BTreeSet<_> = said
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        for source in &sources {
            let below = source.path.strip_prefix(module).ok().and_then(Path::to_str);
            let Some(file) = below.and_then(|below| below.strip_suffix(".rs")) else {
                continue;
            };
            // Each module may have its part of the configuration.
            if file.contains('/') || matches!(file, "config" | "tests" | "shipped") {
                continue;
            }
            judged += 1;
            if !said.contains(file) && file != "upgrade_hazards" {
                faults.push(format!("the row of {module} does not name {file}"));
            }
        }
    }
    assert_holds(&faults, judged, MIN_FILES_IN_TABLE);
}
