//! The statements and blocks of a VCL, with the files that it includes.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use super::super::source::{SourcePlace, SourceStatement, short_name};

/// How deep files may include each other.
const DEEPEST: usize = 8;

/// Reads a file with all that it includes.
pub fn parse(file: &Path) -> anyhow::Result<Vec<SourceStatement>> {
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    parse_file(file, &folder, 0)
}

fn parse_file(file: &Path, folder: &Path, depth: usize) -> anyhow::Result<Vec<SourceStatement>> {
    let text = without_templates(&String::from_utf8_lossy(&fs::read(file)?));
    let mut reader = StatementReader {
        rest: text.chars().collect(),
        at: 0,
        line: 1,
        file: short_name(file),
        folder,
        depth,
    };
    reader.block(true)
}

/// Images of containers fill `${NAME:-default}` in before Varnish reads the file; here it is the
/// default.
fn without_templates(text: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let filled = after.split_once('}').and_then(|(variable, after)| {
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
    folder: &'a Path,
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
                    found.push(self.statement("C{ … }C", line, None));
                }
                '{' => {
                    let head = std::mem::take(&mut text);
                    let inside = self.block(false)?;
                    found.push(self.statement(&head, line, Some(inside)));
                }
                '}' => {
                    anyhow::ensure!(!is_file, "{}:{}: no block ends here", self.file, self.line);
                    if !text.trim().is_empty() {
                        found.push(self.statement(&text, line, None));
                    }
                    return Ok(found);
                }
                ';' => {
                    let ended = std::mem::take(&mut text);
                    if !ended.trim().is_empty() {
                        let one = self.statement(&ended, line, None);
                        found.extend(self.included(one));
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
        &self,
        text: &str,
        line: usize,
        block: Option<Vec<SourceStatement>>,
    ) -> SourceStatement {
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
        SourceStatement::new(place, text, words, block)
    }

    /// The statement, and those of the file that it includes, if it does and the file is there.
    fn included(&self, one: SourceStatement) -> Vec<SourceStatement> {
        if one.name() != "include" {
            return vec![one];
        }
        let name = one.argument().trim_matches('"').to_owned();
        let file = self.folder.join(name);
        let read = (self.depth < DEEPEST).then(|| parse_file(&file, self.folder, self.depth + 1));
        match read {
            Some(Ok(inside)) => {
                one.translated();
                std::iter::once(one).chain(inside).collect()
            }
            _ => {
                one.remarked("it can't be read here");
                vec![one]
            }
        }
    }
}

/// Notes the line in which a statement begins.
fn begin(text: &mut String, line: &mut usize, now: usize) {
    if text.trim().is_empty() {
        text.clear();
        *line = now;
    }
}
