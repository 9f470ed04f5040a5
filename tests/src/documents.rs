//! The documents for people who use or change the program, and what stands in their fenced blocks.

use std::fs;
use std::path::PathBuf;

use crate::cli::repository;

/// The least that there are; far fewer means that a test went blind.
const MIN_DOCUMENTS: usize = 40;

/// Where documents lie.
const FOLDERS: [&str; 10] = [
    "",
    "docs",
    "docs/cms",
    "plugin-sdk",
    "plugin-sdk/c",
    "plugin-sdk/clients",
    "plugin-sdk/clients/js",
    "plugin-sdk/clients/next",
    "plugin-sdk/clients/python",
    "plugin-sdk/zig",
];

/// A document for people who use or change the program.
pub struct ProjectDocument {
    /// Its path from the root of the repository.
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

/// All of them, in the order of their names.
///
/// # Panics
/// If a folder can't be read, or has too little.
pub fn documents() -> Vec<ProjectDocument> {
    let root = repository();
    let entries = FOLDERS
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .map(|path| ProjectDocument {
            name: path.strip_prefix(&root).unwrap().display().to_string(),
            text: fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect();
    documents.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(documents.len() >= MIN_DOCUMENTS, "only {}", documents.len());
    documents
}

/// A fenced block of a document: what stands behind its fence, and its text.
#[derive(Debug)]
pub struct DocumentBlock {
    pub kind: String,
    pub text: String,
}

/// A line of a block that a person types, and what the document shows of its output.
#[derive(PartialEq, Eq, Debug)]
pub struct TypedCommand {
    pub line: String,
    pub shown: Vec<String>,
}

impl ProjectDocument {
    /// Its fenced blocks, in their order.
    pub fn blocks(&self) -> Vec<DocumentBlock> {
        let mut found = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let text = lines.by_ref().take_while(|line| *line != "```");
                found.push(DocumentBlock {
                    kind: kind.to_owned(),
                    text: text.map(|line| format!("{line}\n")).collect(),
                });
            }
        }
        found
    }

    /// What is wrong, with the name of the document.
    pub fn fault(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.name)
    }
}

impl DocumentBlock {
    /// The lines of a shell block that are typed: all of `sh`, and those of `console` that begin
    /// with a prompt. A line that ends with a backslash goes on in the next one.
    pub fn typed(&self) -> Vec<TypedCommand> {
        let text = self.text.replace("\\\n", " ");
        let mut typed: Vec<TypedCommand> = Vec::new();
        for line in text.lines() {
            let command = match self.kind.as_str() {
                "sh" => Some(line).filter(|line| !line.is_empty() && !line.starts_with('#')),
                "console" => line.strip_prefix("$ "),
                _ => None,
            };
            match (command, typed.last_mut()) {
                (Some(command), _) => typed.push(TypedCommand {
                    line: command.to_owned(),
                    shown: Vec::new(),
                }),
                (None, Some(last)) if self.kind == "console" => last.shown.push(line.to_owned()),
                _ => {}
            }
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(kind: &str, text: &str) -> Vec<(String, Vec<String>)> {
        let block = DocumentBlock {
            kind: kind.to_owned(),
            text: text.to_owned(),
        };
        let commands = block.typed().into_iter();
        commands
            .map(|command| (command.line, command.shown))
            .collect()
    }

    #[test]
    fn commands_are_told_from_what_they_print() {
        let shown = vec!["ok".to_owned(), "$5".to_owned()];
        assert_eq!(
            typed("console", "$ a -b\nok\n$5\n$ c\n"),
            [("a -b".to_owned(), shown), ("c".to_owned(), vec![])]
        );
        assert_eq!(
            typed("sh", "# says nothing\na \\\n  b\n\nc\n"),
            [("a    b".to_owned(), vec![]), ("c".to_owned(), vec![])]
        );
        assert!(typed("yaml", "$ a\n").is_empty());
    }
}
