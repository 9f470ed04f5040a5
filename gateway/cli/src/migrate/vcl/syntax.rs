//! The statements and blocks of a VCL, with the files that it includes.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use super::super::include_pattern;
use super::super::source::{SourcePlace, SourceStatement, name_within, text_of};

/// How deep files may include each other.
const DEEPEST_INCLUDE: usize = 8;

/// How deep blocks may be nested.
const DEEPEST_BLOCK: usize = 64;

/// The most statements of all files together.
const MOST_STATEMENTS: usize = 20_000;

/// The most octets of all files together.
const MOST_OCTETS: u64 = 2 * 1024 * 1024;

/// The most files.
const MOST_FILES: usize = 256;

/// The longest name with a default that images of containers fill in, in octets.
const LONGEST_TEMPLATE: usize = 1024;

/// What is read of all files together.
#[derive(Default)]
struct SourceBudget {
    octets: u64,
    files: usize,
    statements: usize,
    /// The files that are being read, of which each includes the next.
    open: Vec<PathBuf>,
}

impl SourceBudget {
    /// The text of a file that is there; none if it is not.
    fn read(&mut self, file: &Path) -> anyhow::Result<Option<String>> {
        let known = fs::metadata(file).ok().filter(fs::Metadata::is_file);
        let Some(known) = known else { return Ok(None) };
        self.octets += known.len();
        self.files += 1;
        anyhow::ensure!(
            self.octets <= MOST_OCTETS,
            "the files are larger than {MOST_OCTETS} octets together; take out what Varnish does not need"
        );
        anyhow::ensure!(
            self.files <= MOST_FILES,
            "more than {MOST_FILES} files are included"
        );
        let text = fs::read(file).ok();
        Ok(text.map(|text| without_templates(&text_of(&text))))
    }

    fn count_statement(&mut self) -> anyhow::Result<()> {
        self.statements += 1;
        anyhow::ensure!(
            self.statements <= MOST_STATEMENTS,
            "there are more than {MOST_STATEMENTS} statements"
        );
        Ok(())
    }
}

/// Reads a file with all that it includes.
pub fn parse(file: &Path) -> anyhow::Result<Vec<SourceStatement>> {
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    let mut budget = SourceBudget::default();
    let text = budget.read(file)?;
    let text = text.with_context(|| match fs::read(file) {
        Err(error) => error.to_string(),
        Ok(_) => "it is no file".to_owned(),
    })?;
    parse_text(&text, file, &folder, &mut budget)
}

fn parse_text(
    text: &str,
    file: &Path,
    folder: &Path,
    budget: &mut SourceBudget,
) -> anyhow::Result<Vec<SourceStatement>> {
    budget.open.push(identity(file));
    let mut reader = StatementReader {
        rest: text.chars().collect(),
        at: 0,
        line: 1,
        file: name_within(folder, file),
        beside: file.parent().unwrap_or(folder),
        folder,
        budget,
        depth: 0,
    };
    let found = reader.block(true)?;
    budget.open.pop();
    Ok(found)
}

/// A file, however it is spelled.
fn identity(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

/// Images of containers fill `${NAME:-default}` in before Varnish reads the file; here it is the
/// default.
fn without_templates(text: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let near = after.char_indices().nth(LONGEST_TEMPLATE);
        let near = &after[..near.map_or(after.len(), |(at, _)| at)];
        let ended = near.find('}').map(|at| (&after[..at], &after[at + 1..]));
        let filled = ended.and_then(|(variable, after)| {
            let (name, default) = variable[2..].split_once(":-")?;
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_name.then_some((default, after))
        });
        done.push_str(before);
        rest = match filled {
            Some((default, after)) => {
                done.push_str(default);
                after
            }
            None => {
                done.push_str("${");
                &after[2..]
            }
        };
    }
    done + rest
}

struct StatementReader<'a> {
    rest: Vec<char>,
    at: usize,
    line: usize,
    file: Rc<str>,
    /// The folder of the file that is read, and that of the main one.
    beside: &'a Path,
    folder: &'a Path,
    budget: &'a mut SourceBudget,
    /// How many blocks are open.
    depth: usize,
}

impl StatementReader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn looks_at(&self, text: &str) -> bool {
        let wanted = text.chars();
        wanted
            .enumerate()
            .all(|(n, c)| self.rest.get(self.at + n) == Some(&c))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Skips to behind this text, or to the end.
    fn skip_past(&mut self, text: &str) -> String {
        let mut skipped = String::new();
        while !self.looks_at(text) {
            match self.next() {
                Some(c) => skipped.push(c),
                None => return skipped,
            }
        }
        for _ in text.chars() {
            self.next();
        }
        skipped
    }

    /// Skips a comment, if one begins here.
    fn comment(&mut self) -> bool {
        if self.peek() == Some('#') || self.looks_at("//") {
            while self.peek().is_some_and(|c| c != '\n') {
                self.next();
            }
            return true;
        }
        if self.looks_at("/*") {
            self.skip_past("*/");
            return true;
        }
        false
    }

    /// A text in quotation marks, if one begins here, in one line.
    fn quoted(&mut self) -> Option<String> {
        for (begin, end) in [("{\"", "\"}"), ("\"\"\"", "\"\"\""), ("\"", "\"")] {
            if self.looks_at(begin) {
                for _ in begin.chars() {
                    self.next();
                }
                let inside = self.skip_past(end);
                let inside: Vec<&str> = inside.split('\n').map(str::trim).collect();
                return Some(format!("\"{}\"", inside.join(" ").replace('"', "'")));
            }
        }
        None
    }

    /// Statements up to the end of a block, or of the file.
    fn block(&mut self, is_file: bool) -> anyhow::Result<Vec<SourceStatement>> {
        let mut found = Vec::new();
        let mut text = String::new();
        let mut line = self.line;
        loop {
            if self.comment() {
                continue;
            }
            if let Some(quoted) = self.quoted() {
                begin(&mut text, &mut line, self.line);
                text.push_str(&quoted);
                continue;
            }
            let Some(c) = self.next() else {
                anyhow::ensure!(is_file, "{}: a block does not end", self.file);
                anyhow::ensure!(
                    text.trim().is_empty(),
                    "{}:{line}: `{text}` does not end",
                    self.file
                );
                return Ok(found);
            };
            match c {
                '{' if text.trim() == "C" => {
                    self.skip_past("}C");
                    text.clear();
                    found.push(self.statement("C{ … }C", line, None)?);
                }
                '{' => {
                    let head = std::mem::take(&mut text);
                    self.depth += 1;
                    anyhow::ensure!(
                        self.depth <= DEEPEST_BLOCK,
                        "{}:{}: blocks are nested deeper than {DEEPEST_BLOCK} times",
                        self.file,
                        self.line
                    );
                    let inside = self.block(false)?;
                    self.depth -= 1;
                    found.push(self.statement(&head, line, Some(inside))?);
                }
                '}' => {
                    anyhow::ensure!(!is_file, "{}:{}: no block ends here", self.file, self.line);
                    if !text.trim().is_empty() {
                        found.push(self.statement(&text, line, None)?);
                    }
                    return Ok(found);
                }
                ';' => {
                    let ended = std::mem::take(&mut text);
                    if !ended.trim().is_empty() {
                        let one = self.statement(&ended, line, None)?;
                        found.extend(self.included(one)?);
                    }
                }
                c if c.is_whitespace() && text.is_empty() => {}
                c => {
                    begin(&mut text, &mut line, self.line);
                    text.push(c);
                }
            }
        }
    }

    fn statement(
        &mut self,
        text: &str,
        line: usize,
        block: Option<Vec<SourceStatement>>,
    ) -> anyhow::Result<SourceStatement> {
        let place = || format!("{}:{line}", self.file);
        self.budget.count_statement().with_context(place)?;
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in ["else if", "elseif", "elsif", "elif", "if"] {
            if let Some(rest) = text.strip_prefix(word).filter(|rest| rest.starts_with('(')) {
                text = format!("{word} {rest}");
            }
        }
        let place = SourcePlace {
            file: self.file.clone(),
            line,
        };
        let words = text.split(' ').map(str::to_owned).collect();
        Ok(SourceStatement::new(place, text, words, block))
    }

    /// The statement, and those of the files that it includes, if it does and they are there.
    fn included(&mut self, one: SourceStatement) -> anyhow::Result<Vec<SourceStatement>> {
        if one.name() != "include" {
            return Ok(vec![one]);
        }
        let named = one.text.strip_prefix("include").unwrap_or_default().trim();
        let pattern = named.strip_prefix("+glob").map(str::trim);
        let places = self.places_of(pattern.unwrap_or(named).trim_matches('"'));
        let files = match pattern {
            Some(_) => matched(&places).with_context(|| one.place.to_string())?,
            None => {
                let mut files = places.iter().map(|(folder, name)| folder.join(name));
                files.find(|file| file.is_file()).map(|file| vec![file])
            }
        };
        let Some(files) = files else {
            one.remarked("it can't be read here");
            return Ok(vec![one]);
        };
        one.translated();
        let place = one.place.clone();
        let mut found = vec![one];
        for file in files {
            found.extend(self.of_file(&file, &place)?);
        }
        Ok(found)
    }

    /// Where a file may be: with `./`, beside the one that includes it; otherwise in the folder of the
    /// main file, where a copy also has what lies in Varnish's own folder.
    fn places_of<'b>(&self, name: &'b str) -> Vec<(PathBuf, &'b str)> {
        if let Some(name) = name.strip_prefix("./") {
            return vec![(self.beside.to_owned(), name)];
        }
        let copied = name.strip_prefix("/etc/varnish/").unwrap_or(name);
        let here = || self.folder.to_owned();
        vec![(here(), name), (here(), copied)]
    }

    fn of_file(
        &mut self,
        file: &Path,
        place: &SourcePlace,
    ) -> anyhow::Result<Vec<SourceStatement>> {
        anyhow::ensure!(
            !self.budget.open.contains(&identity(file)),
            "{place}: {} includes itself",
            file.display()
        );
        anyhow::ensure!(
            self.budget.open.len() < DEEPEST_INCLUDE,
            "{place}: files include each other deeper than {DEEPEST_INCLUDE} times"
        );
        let text = self.budget.read(file).with_context(|| place.to_string())?;
        let text = text.with_context(|| format!("{place}: {} can't be read", file.display()))?;
        parse_text(&text, file, self.folder, self.budget)
    }
}

/// The files of the first place that has some. Varnish refuses a pattern without a file.
fn matched(places: &[(PathBuf, &str)]) -> anyhow::Result<Option<Vec<PathBuf>>> {
    for (folder, name) in places {
        let files = include_pattern::files(folder, name)?;
        if !files.is_empty() {
            return Ok(Some(files));
        }
    }
    Ok(None)
}

/// Notes the line in which a statement begins.
fn begin(text: &mut String, line: &mut usize, now: usize) {
    if text.trim_start().is_empty() {
        text.clear();
        *line = now;
    }
}
