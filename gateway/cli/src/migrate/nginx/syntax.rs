//! The directives and blocks of a configuration of nginx, with the files that it includes.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use super::super::include_pattern::{self, is_pattern};
use super::super::source::{SourceAllowance, SourcePlace, SourceStatement, name_within};

/// Reads a file with all that it includes.
pub fn parse(file: &Path) -> anyhow::Result<Vec<SourceStatement>> {
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    let allowance = SourceAllowance::default();
    let text = allowance.read(file, 0, None)?;
    DirectiveReader::new(file, &text, &folder, &allowance)?.file_directives()
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
    allowance: &'a SourceAllowance,
    /// How deep the file was included.
    depth: usize,
    /// How many blocks are open, those around an `include` too.
    open_blocks: usize,
}

impl<'a> DirectiveReader<'a> {
    fn new(
        file: &Path,
        text: &str,
        folder: &'a Path,
        allowance: &'a SourceAllowance,
    ) -> anyhow::Result<Self> {
        let name = name_within(folder, file);
        let mut words = words(text).with_context(|| name.to_string())?;
        words.reverse();
        Ok(Self {
            words,
            file: name,
            folder,
            allowance,
            depth: 0,
            open_blocks: 0,
        })
    }

    /// All directives of the file.
    fn file_directives(&mut self) -> anyhow::Result<Vec<SourceStatement>> {
        let found = self.directives()?;
        match self.words.last() {
            None => Ok(found),
            Some(word) => anyhow::bail!("{}:{}: no block ends here", self.file, word.line),
        }
    }

    /// Directives up to the end of a block that begins in this line.
    fn block(&mut self, line: usize) -> anyhow::Result<Vec<SourceStatement>> {
        self.open_blocks += 1;
        let found = self.directives()?;
        self.open_blocks -= 1;
        let end = self.words.pop();
        anyhow::ensure!(end.is_some(), "{}:{line}: a block does not end", self.file);
        Ok(found)
    }

    /// Directives up to a closing brace, which stays, or the end of the file.
    fn directives(&mut self) -> anyhow::Result<Vec<SourceStatement>> {
        let mut found = Vec::new();
        loop {
            match self.words.last() {
                None => return Ok(found),
                Some(word) if word.kind == WordKind::Mark && word.text == "}" => return Ok(found),
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
        let place = SourcePlace {
            file: self.file.clone(),
            line,
        };
        self.allowance.count(&place, self.open_blocks)?;
        let mut words = Vec::new();
        let mut shown = Vec::new();
        let block = loop {
            let Some(word) = self.words.pop() else {
                anyhow::bail!("{}:{line}: a directive does not end", self.file);
            };
            match (word.kind, word.text.as_str()) {
                (WordKind::Mark, ";") => break None,
                (WordKind::Mark, "{") => {
                    self.allowance.count_block(&place)?;
                    break Some(self.block(line)?);
                }
                (WordKind::Mark, _) => {
                    anyhow::bail!("{}:{}: a directive does not end", self.file, word.line);
                }
                (WordKind::Quoted, _) => shown.push(format!("\"{}\"", word.text)),
                (WordKind::Text, _) => shown.push(word.text.clone()),
            }
            words.push(word.text);
        };
        let statement = SourceStatement::new(place, shown.join(" "), words, block);
        match statement.name() {
            "include" => self.included(statement),
            _ => Ok(vec![statement]),
        }
    }

    fn included(&self, statement: SourceStatement) -> anyhow::Result<Vec<SourceStatement>> {
        if statement.argument().ends_with("mime.types") {
            statement.needs_nothing();
            return Ok(vec![statement]);
        }
        let files = self.files_of(statement.argument());
        let files = files.with_context(|| statement.place.to_string())?;
        if files.is_empty() {
            match self.names_nothing(statement.argument()) {
                true => statement.needs_nothing(),
                false => statement.remarked("it can't be read here"),
            }
            return Ok(vec![statement]);
        }
        let mut inside = Vec::new();
        for file in &files {
            inside.extend(self.included_file(file, &statement.place)?);
        }
        statement.translated();
        Ok(std::iter::once(statement).chain(inside).collect())
    }

    fn included_file(&self, file: &Path, at: &SourcePlace) -> anyhow::Result<Vec<SourceStatement>> {
        let depth = self.depth + 1;
        let text = self.allowance.read(file, depth, Some(at))?;
        let mut reader = DirectiveReader::new(file, &text, self.folder, self.allowance)?;
        reader.depth = depth;
        reader.open_blocks = self.open_blocks;
        reader.file_directives()
    }
}

impl DirectiveReader<'_> {
    /// The files that an `include` names. In a copy of a configuration they stand beside its main
    /// file, or one folder above a file of one server.
    fn files_of(&self, name: &str) -> anyhow::Result<Vec<PathBuf>> {
        for (folder, name) in self.places_of(name) {
            let files = match is_pattern(name) {
                true => include_pattern::files(&folder, name)?,
                false => {
                    let file = folder.join(name);
                    Some(file)
                        .filter(|file| file.is_file())
                        .into_iter()
                        .collect()
                }
            };
            if !files.is_empty() {
                return Ok(files);
            }
        }
        Ok(Vec::new())
    }

    fn places_of<'b>(&self, name: &'b str) -> [(PathBuf, &'b str); 3] {
        let copied = name.strip_prefix("/etc/nginx/").unwrap_or(name);
        let here = self.folder.to_owned();
        [
            (here.clone(), name),
            (here, copied),
            (self.folder.join(".."), copied),
        ]
    }

    /// Says whether a name without files is a pattern whose folder exists: nginx includes nothing
    /// then.
    fn names_nothing(&self, name: &str) -> bool {
        let mut places = self.places_of(name).into_iter();
        is_pattern(name)
            && places.any(|(folder, name)| include_pattern::has_fixed_folder(&folder, name))
    }
}
