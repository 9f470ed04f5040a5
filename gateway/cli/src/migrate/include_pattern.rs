//! The files that an `include` with wildcards names, as the function `glob` of C finds them, which
//! nginx and Varnish call: `*`, `?` and `[a-z]` stand for letters of one name, in files and in folders
//! on the way, and a name that begins with a dot is found by a pattern that begins with one alone.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

/// The most names in folders that are looked at for one pattern.
const MOST_NAMES: usize = 100_000;

/// The longest pattern, in octets; no path of Linux is longer.
const LONGEST: usize = 4_096;
/// `glob` also reads these, which hardly anybody writes in an `include`; here they are refused.
const NOT_READ: [&str; 4] = ["[:", "[.", "[=", "\\"];

/// Says whether a text has a wildcard in it.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files that a pattern names from a folder, in the order of their paths.
///
/// # Errors
/// If the pattern is not one that is understood, if too many names would have to be looked at, and if
/// a folder or a file can't be read that the pattern names.
pub fn files(folder: &Path, pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    anyhow::ensure!(
        pattern.len() <= LONGEST,
        "a pattern is longer than {LONGEST} octets"
    );
    if let Some(other) = NOT_READ.iter().find(|other| pattern.contains(*other)) {
        anyhow::bail!("`{other}` in the pattern {pattern} is not understood: write the names out");
    }
    let mut looked_at = 0;
    let mut found = vec![folder.to_owned()];
    for component in Path::new(pattern).components() {
        let mut next = Vec::new();
        for folder in &found {
            step(folder, component, &mut looked_at, &mut next)?;
        }
        found = next;
    }
    for path in &found {
        anyhow::ensure!(
            !path.is_symlink() || path.exists(),
            "{} is a link that leads to no file here: copy what it leads to",
            path.display()
        );
    }
    found.retain(|path| path.is_file());
    // By the whole text, as `glob` does.
    found.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    Ok(found)
}

/// Says whether a pattern names a folder below `folder` before its first wildcard, and whether that
/// folder exists.
pub fn has_fixed_folder(folder: &Path, pattern: &str) -> bool {
    let parts = Path::new(pattern).components();
    let fixed = parts.take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy()));
    let fixed: PathBuf = fixed.collect();
    let is_below = fixed
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_below && fixed != Path::new("") && folder.join(fixed).is_dir()
}

/// Where one part of a pattern leads to from a folder.
fn step(
    folder: &Path,
    component: Component<'_>,
    looked_at: &mut usize,
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let pattern = component.as_os_str().to_string_lossy();
    if !matches!(component, Component::Normal(_)) || !is_pattern(&pattern) {
        found.push(folder.join(component));
        return Ok(());
    }
    let here = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let letters: Vec<char> = pattern.chars().collect();
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} can't be read", here.display()));
        }
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("{} can't be read", here.display()))?;
        *looked_at += 1;
        anyhow::ensure!(
            *looked_at <= MOST_NAMES,
            "more than {MOST_NAMES} names would have to be compared with the pattern"
        );
        let name = entry.file_name();
        let text: Vec<char> = name.to_string_lossy().chars().collect();
        let is_hidden = text.first() == Some(&'.') && letters.first() != Some(&'.');
        if !is_hidden && matches(&letters, &text) {
            found.push(folder.join(&name));
        }
    }
    Ok(())
}

/// Says whether a pattern stands for a name. What follows the last `*` is tried at each place,
/// and no earlier `*` has to be tried again, so the time is bounded.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_star = None;
    while read < name.len() {
        match one_letter(&pattern[at..], name[read]) {
            LetterMatch::Star => {
                last_star = Some((at, read));
                at += 1;
                continue;
            }
            LetterMatch::Fits { long } => {
                at += long;
                read += 1;
                continue;
            }
            LetterMatch::Differs => {}
        }
        let Some((star, from)) = last_star else {
            return false;
        };
        last_star = Some((star, from + 1));
        (at, read) = (star + 1, from + 1);
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// How the beginning of a pattern compares with one letter of a name.
enum LetterMatch {
    Star,
    /// It stands for the letter; `long` is how many letters of the pattern that took.
    Fits {
        long: usize,
    },
    Differs,
}

fn one_letter(pattern: &[char], letter: char) -> LetterMatch {
    let fits = |is: bool, long| match is {
        true => LetterMatch::Fits { long },
        false => LetterMatch::Differs,
    };
    match pattern {
        [] => LetterMatch::Differs,
        ['*', ..] => LetterMatch::Star,
        ['?', ..] => fits(true, 1),
        ['[', rest @ ..] => match class(rest, letter) {
            Some((is_in, long)) => fits(is_in, long + 1),
            None => fits(letter == '[', 1),
        },
        [plain, ..] => fits(*plain == letter, 1),
    }
}

/// Says whether a letter is in a class such as `[a-z]`, and how long the class is after its first
/// bracket. The result is none if no `]` ends the class.
fn class(pattern: &[char], letter: char) -> Option<(bool, usize)> {
    let is_negated = matches!(pattern.first(), Some('!' | '^'));
    let begin = usize::from(is_negated);
    // A bracket that comes first is one of the letters.
    let length = pattern.iter().skip(begin + 1).position(|c| *c == ']')?;
    let mut letters = &pattern[begin..=begin + length];
    let mut is_in = false;
    loop {
        letters = match letters {
            [] => break,
            [first, '-', last, rest @ ..] => {
                is_in |= (*first..=*last).contains(&letter);
                rest
            }
            [one, rest @ ..] => {
                is_in |= *one == letter;
                rest
            }
        };
    }
    Some((is_in != is_negated, begin + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_they_do_in_a_shell() {
        let fits = |pattern: &str, name: &str| {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            matches(&letters(pattern), &letters(name))
        };
        for (pattern, name) in [
            ("*", "a"),
            ("*.conf", "a.conf"),
            ("*-vhost*.conf", "10-vhost-a.conf"),
            ("[0-9]*-a?.conf", "10-ab.conf"),
            ("[!a]*", "b"),
            ("[]a]", "]"),
            ("[a", "[a"),
            ("*a*b", "aaabab"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("[0-9].conf", "a.conf"),
            ("[!a]*", "a"),
            ("?", ""),
            ("*a*b", "aaaba"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_not_understood_or_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let far = format!("{}*", "a/".repeat(LONGEST));
        for pattern in ["[[:digit:]]*", "a\\*", "*[=a=]", &far] {
            assert!(files(here, pattern).is_err(), "{pattern}");
        }
        std::fs::create_dir(here.join("sites")).unwrap();
        assert_eq!(files(here, "sites/*").unwrap(), Vec::<PathBuf>::new());
        std::os::unix::fs::symlink("/nowhere/at/all", here.join("sites/x")).unwrap();
        let error = files(here, "sites/*").unwrap_err().to_string();
        assert!(error.contains("leads to no file"), "{error}");
        for (pattern, is_there) in [
            ("sites/*", true),
            ("sites/a/*", false),
            ("*.d/deny.conf", false),
            ("deny-?.conf", false),
            ("../*", false),
            ("/etc/*", false),
        ] {
            assert_eq!(has_fixed_folder(here, pattern), is_there, "{pattern}");
        }
    }
}
