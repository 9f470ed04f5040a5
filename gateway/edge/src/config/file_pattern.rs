//! The files that a text of `include` names: one by its path, or those that match a pattern.
//!
//! `*` and `?` hold within one folder's names; a name that begins with a dot is matched by a pattern
//! that begins with one alone, as in a shell, so that the swap files of editors are left out.
//! Symbolic links are followed.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::pattern::Pattern;

/// The most names of folders that are looked at for one pattern.
const MAX_NAMES: usize = 100_000;

/// What a text names.
#[derive(PartialEq, Eq, Debug)]
pub enum MatchedFiles {
    /// The file with this path, which need not be there.
    One(PathBuf),
    /// All that match, by their names in order.
    Several(Vec<PathBuf>),
}

/// The files that `text` names, relative to a folder.
///
/// # Errors
/// If the text can't be a pattern, or a folder can't be listed.
pub fn matched(folder: &Path, text: &str) -> Result<MatchedFiles, String> {
    if !has_wildcard(text) {
        return Ok(MatchedFiles::One(folder.join(text)));
    }
    if text.split('/').any(|name| name.contains("**")) {
        return Err(format!(
            "`**` in `{text}` is not supported; expected a `*` for each folder on the way"
        ));
    }
    let mut search = PatternSearch { names: 0 };
    let mut found = vec![folder.to_owned()];
    let mut components = Path::new(text).components().peekable();
    while let Some(component) = components.next() {
        let part = match components.peek() {
            Some(_) => PatternPart::Folder,
            None => PatternPart::File,
        };
        found = search.step(found, component, part)?;
    }
    found.sort();
    Ok(MatchedFiles::Several(found))
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Which part of a pattern is compared: only folders count on the way, only files at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PatternPart {
    Folder,
    File,
}

struct PatternSearch {
    /// How many names were looked at.
    names: usize,
}

impl PatternSearch {
    /// What one part of the pattern leads to from these folders.
    fn step(
        &mut self,
        from: Vec<PathBuf>,
        component: Component<'_>,
        part: PatternPart,
    ) -> Result<Vec<PathBuf>, String> {
        let name = component.as_os_str().to_string_lossy();
        if component == Component::CurDir {
            return Ok(from);
        }
        let is_plain = !matches!(component, Component::Normal(_)) || !has_wildcard(&name);
        if is_plain {
            let there = from.into_iter().map(|folder| folder.join(component));
            return Ok(there
                .filter(|path| part == PatternPart::Folder || is_file(path))
                .collect());
        }
        let mut found = Vec::new();
        for folder in from {
            self.list(&folder, &name, part, &mut found)?;
        }
        Ok(found)
    }

    fn list(
        &mut self,
        folder: &Path,
        pattern: &str,
        part: PatternPart,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        let here = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let compiled = Pattern::new(pattern);
        let failed =
            |error: std::io::Error| format!("{} cannot be listed: {error}", here.display());
        let names = match std::fs::read_dir(here) {
            Ok(names) => names,
            Err(error) if is_absence(error.kind()) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in names {
            let name = entry.map_err(failed)?.file_name();
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(format!(
                    "more than {MAX_NAMES} names to compare with the pattern; expected a folder \
                     with configuration files alone"
                ));
            }
            let text = name.to_string_lossy();
            let is_hidden = text.starts_with('.') && !pattern.starts_with('.');
            let path = folder.join(&name);
            if !is_hidden && compiled.matches(&text) && is_wanted(&path, part) {
                found.push(path);
            }
        }
        Ok(())
    }
}

fn is_absence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A folder is wanted on the way, and all else at its end: what can't be read there is told later.
fn is_wanted(path: &Path, part: PatternPart) -> bool {
    path.is_dir() == (part == PatternPart::Folder)
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok() && !path.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, pattern: &str) -> Vec<String> {
        match matched(folder, pattern).unwrap() {
            MatchedFiles::One(file) => panic!("one file: {file:?}"),
            MatchedFiles::Several(files) => files
                .iter()
                .map(|file| file.strip_prefix(folder).unwrap().display().to_string())
                .collect(),
        }
    }

    #[test]
    fn a_pattern_names_files_in_order_and_no_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir_all(at.join("b/deep.yaml")).unwrap();
        std::fs::create_dir_all(at.join("a")).unwrap();
        for name in [
            "b/2.yaml",
            "b/10.yaml",
            "a/z.yaml",
            "b/.2.yaml.swp",
            "b/.h.yaml",
            "b/x.yml",
        ] {
            std::fs::write(at.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("../a/z.yaml", at.join("b/link.yaml")).unwrap();
        std::os::unix::fs::symlink("gone", at.join("b/dangling.yaml")).unwrap();
        let all = ["b/10.yaml", "b/2.yaml", "b/dangling.yaml", "b/link.yaml"];
        assert_eq!(names(at, "b/*.yaml"), all);
        assert_eq!(names(at, "./b/?.yaml"), ["b/2.yaml"]);
        assert_eq!(names(at, "*/z.yaml"), ["a/z.yaml"]);
        assert_eq!(names(at, "b/.*.yaml"), ["b/.h.yaml"]);
        assert_eq!(names(at, "none/*.yaml"), [""; 0]);
        assert_eq!(names(at, "b/2.yaml/*"), [""; 0]);
        let absolute = format!("{}/a/*", at.display());
        assert_eq!(names(at, &absolute), ["a/z.yaml"]);
    }

    #[test]
    fn a_path_without_wildcards_is_one_file_whether_it_is_there_or_not() {
        let one = MatchedFiles::One(PathBuf::from("conf/[a].yaml"));
        assert_eq!(matched(Path::new("conf"), "[a].yaml"), Ok(one));
    }

    #[test]
    fn a_pattern_over_all_levels_is_refused() {
        let refused = matched(Path::new(""), "routes/**/*.yaml").unwrap_err();
        assert!(refused.contains("a `*` for each folder"), "{refused}");
    }
}
