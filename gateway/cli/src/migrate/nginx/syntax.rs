//! The directives and blocks of a configuration of nginx, with the files that it includes.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use super::super::source::{SourcePlace, SourceStatement, short_name};

/// How deep files may include each other.
const DEEPEST: usize = 8;

/// Reads a file with all that it includes.
pub fn parse(file: &Path) -> anyhow::Result<Vec<SourceStatement>> {
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    parse_file(file, &folder, 0)
}

fn parse_file(file: &Path, folder: &Path, depth: usize) -> anyhow::Result<Vec<SourceStatement>> {
    let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
    let mut reader = DirectiveReader {
        words: words(&text)?,
        file: short_name(file),
        folder,
        depth,
    };
    reader.words.reverse();
    let found = reader.block(true)?;
    Ok(found)
}

/// A word of the file with its line.
struct PlacedWord {
    text: String,
    line: usize,
    kind: WordKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WordKind {
    Text,
    /// It stood in quotation marks.
    Quoted,
    /// `;`, `{` or `}`.
    Mark,
}

/// The words of a text; comments are left out.
fn words(text: &str) -> anyhow::Result<Vec<PlacedWord>> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(c) = rest.next() {
        let begun = line;
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' | '{' | '}' => found.push(PlacedWord {
                text: c.to_string(),
                line,
                kind: WordKind::Mark,
            }),
            quote @ ('"' | '\'') => {
                let mut word = String::new();
                loop {
                    let next = rest.next();
                    let next =
                        next.with_context(|| format!("line {begun}: a text does not end"))?;
                    line += usize::from(next == '\n');
                    match next {
                        '\\' if rest.peek() == Some(&quote) => word.extend(rest.next()),
                        c if c == quote => break,
                        c => word.push(c),
                    }
                }
                found.push(PlacedWord {
                    text: word,
                    line: begun,
                    kind: WordKind::Quoted,
                });
            }
            first => {
                let word = plain_word(first, &mut rest);
                found.push(PlacedWord {
                    text: word,
                    line: begun,
                    kind: WordKind::Text,
                });
            }
        }
    }
    Ok(found)
}

/// A word without quotation marks. `${name}` is part of it, and so are the counts of an expression.
fn plain_word(first: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut word = String::from(first);
    let mut open = 0_usize;
    while let Some(&c) = rest.peek() {
        let begins_block = c == '{' && !takes_brace(&word, rest.clone().nth(1));
        if open == 0 && (c.is_whitespace() || c == ';' || c == '}' || begins_block) {
            break;
        }
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            '\n' => break,
            _ => {}
        }
        word.push(c);
        rest.next();
    }
    word
}

/// Whether a brace belongs to the word before it: that of a variable, or of a count.
fn takes_brace(word: &str, next: Option<char>) -> bool {
    let of_variable = word.ends_with('$') && next.is_some_and(|c| c.is_ascii_alphabetic());
    of_variable || next.is_some_and(|c| c.is_ascii_digit())
}

struct DirectiveReader<'a> {
    /// In reverse.
    words: Vec<PlacedWord>,
    file: Rc<str>,
    folder: &'a Path,
    depth: usize,
}

impl DirectiveReader<'_> {
    /// Directives up to the end of a block, or of the file.
    fn block(&mut self, is_file: bool) -> anyhow::Result<Vec<SourceStatement>> {
        let mut found = Vec::new();
        loop {
            match self.words.last() {
                None if is_file => return Ok(found),
                None => anyhow::bail!("{}: a block does not end", self.file),
                Some(word) if word.kind == WordKind::Mark && word.text == "}" => {
                    let line = word.line;
                    self.words.pop();
                    anyhow::ensure!(!is_file, "{}:{line}: no block ends here", self.file);
                    return Ok(found);
                }
                Some(word) if word.kind == WordKind::Mark && word.text == ";" => {
                    self.words.pop();
                }
                Some(_) => found.extend(self.directive()?),
            }
        }
    }

    /// One directive; of `include`, those of the files that are there.
    fn directive(&mut self) -> anyhow::Result<Vec<SourceStatement>> {
        let line = self.words.last().map_or(0, |word| word.line);
        let mut words = Vec::new();
        let mut shown = Vec::new();
        let block = loop {
            let Some(word) = self.words.pop() else {
                anyhow::bail!("{}:{line}: a directive does not end", self.file);
            };
            match (word.kind, word.text.as_str()) {
                (WordKind::Mark, ";") => break None,
                (WordKind::Mark, "{") => break Some(self.block(false)?),
                (WordKind::Mark, _) => {
                    anyhow::bail!("{}:{}: a directive does not end", self.file, word.line);
                }
                (WordKind::Quoted, _) => shown.push(format!("\"{}\"", word.text)),
                (WordKind::Text, _) => shown.push(word.text.clone()),
            }
            words.push(word.text);
        };
        let place = SourcePlace {
            file: self.file.clone(),
            line,
        };
        let statement = SourceStatement::new(place, shown.join(" "), words, block);
        match statement.name() {
            "include" => Ok(self.included(statement)),
            _ => Ok(vec![statement]),
        }
    }

    fn included(&self, statement: SourceStatement) -> Vec<SourceStatement> {
        let files = self.files_of(statement.argument());
        if statement.argument().ends_with("mime.types") {
            statement.needs_nothing();
            return vec![statement];
        }
        let read = |file: &PathBuf| parse_file(file, self.folder, self.depth + 1).ok();
        let found: Option<Vec<_>> = match self.depth < DEEPEST && !files.is_empty() {
            true => files.iter().map(read).collect(),
            false => None,
        };
        match found {
            Some(found) => {
                statement.translated();
                let all = found.into_iter().flatten();
                std::iter::once(statement).chain(all).collect()
            }
            None => {
                statement.remarked("it can't be read here");
                vec![statement]
            }
        }
    }
}

impl DirectiveReader<'_> {
    /// The files that an `include` names. In a copy of a configuration they stand beside its main
    /// file, or one folder above a file of one server.
    fn files_of(&self, name: &str) -> Vec<PathBuf> {
        let copied = name.strip_prefix("/etc/nginx/").unwrap_or(name);
        let above = self.folder.join("..").join(copied);
        let places = [self.folder.join(name), self.folder.join(copied), above];
        let found = places.iter().map(|place| files_of(place));
        found
            .into_iter()
            .find(|files| !files.is_empty())
            .unwrap_or_default()
    }
}

/// The files that a path with a `*` in its last part names, in the order of their names.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let Some((before, after)) = name.as_deref().and_then(|name| name.split_once('*')) else {
        return vec![path.to_owned()]
            .into_iter()
            .filter(|path| path.is_file())
            .collect();
    };
    let entries = fs::read_dir(path.parent().unwrap_or(path));
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(before) && name.ends_with(after))
    };
    let mut found: Vec<PathBuf> = paths.filter(fits).filter(|path| path.is_file()).collect();
    found.sort();
    found
}
