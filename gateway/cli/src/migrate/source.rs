//! A statement of the configuration that is translated: where it stands, what it says, and what
//! became of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context;

/// The largest file that is read.
const MOST_FILE_BYTES: usize = 4 * 1024 * 1024;
/// The most that all files together may have, each as often as it is included.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The most files that are read, each as often as it is included.
const MOST_FILES: usize = 2000;
/// The most statements of all files together.
const MOST_STATEMENTS: usize = 200_000;
/// The most blocks of all files together. Routes are compared with each other, each with all.
const MOST_BLOCKS: usize = 10_000;
/// How deep files may include each other.
const DEEPEST_INCLUDE: usize = 8;
/// How deep blocks may lie in blocks. What walks through them calls itself for each.
const DEEPEST_BLOCK: usize = 64;

/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The text of a file, without such a mark.
pub fn text_of(bytes: &[u8]) -> String {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    String::from_utf8_lossy(text).into_owned()
}

/// A line of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourcePlace {
    pub file: Rc<str>,
    pub line: usize,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How much of an original has been read. A file that includes itself, or one that never ends, meets a
/// limit instead of taking all memory; what meets one is named with its file and line.
#[derive(Default)]
pub struct SourceAllowance {
    bytes: Cell<usize>,
    files: Cell<usize>,
    statements: Cell<usize>,
    blocks: Cell<usize>,
}

impl SourceAllowance {
    /// The text of a file. `included_at` is the place of what includes it, and `depth` how deep that
    /// one was included; the main file has 0 and no such place.
    pub fn read(
        &self,
        file: &Path,
        depth: usize,
        included_at: Option<&SourcePlace>,
    ) -> anyhow::Result<String> {
        let place = || included_at.map_or_else(|| file.display().to_string(), |at| at.to_string());
        anyhow::ensure!(
            depth <= DEEPEST_INCLUDE,
            "{}: files include each other more than {DEEPEST_INCLUDE} deep",
            place()
        );
        self.files.set(self.files.get() + 1);
        anyhow::ensure!(
            self.files.get() <= MOST_FILES,
            "{}: more than {MOST_FILES} files are included",
            place()
        );
        let mut bytes = Vec::new();
        let limit = u64::try_from(MOST_FILE_BYTES + 1).unwrap_or(u64::MAX);
        let opened = File::open(file).with_context(place)?;
        opened
            .take(limit)
            .read_to_end(&mut bytes)
            .with_context(place)?;
        anyhow::ensure!(
            bytes.len() <= MOST_FILE_BYTES,
            "{}: {} has more than {MOST_FILE_BYTES} bytes",
            place(),
            file.display()
        );
        self.bytes.set(self.bytes.get() + bytes.len());
        anyhow::ensure!(
            self.bytes.get() <= MOST_BYTES,
            "{}: all files together have more than {MOST_BYTES} bytes",
            place()
        );
        Ok(text_of(&bytes))
    }

    /// Counts one more statement, which stands in this many blocks.
    pub fn count(&self, place: &SourcePlace, depth: usize) -> anyhow::Result<()> {
        anyhow::ensure!(
            depth <= DEEPEST_BLOCK,
            "{place}: blocks lie more than {DEEPEST_BLOCK} deep in each other"
        );
        self.statements.set(self.statements.get() + 1);
        anyhow::ensure!(
            self.statements.get() <= MOST_STATEMENTS,
            "{place}: there are more than {MOST_STATEMENTS} statements"
        );
        Ok(())
    }

    /// Counts one more block.
    pub fn count_block(&self, place: &SourcePlace) -> anyhow::Result<()> {
        self.blocks.set(self.blocks.get() + 1);
        anyhow::ensure!(
            self.blocks.get() <= MOST_BLOCKS,
            "{place}: there are more than {MOST_BLOCKS} blocks"
        );
        Ok(())
    }
}

/// What became of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatementFate {
    /// Nothing yet; at the end it stands as a comment in the draft.
    Untouched,
    /// The draft says it.
    Translated,
    /// Lamina does so by itself, or has no need of it.
    NeedsNothing,
    /// The draft says some of it; it also stands as a comment.
    InPart,
}

/// A statement with those in its block.
pub struct SourceStatement {
    pub place: SourcePlace,
    /// In one line, without its block.
    pub text: String,
    /// Its words, without quotation marks.
    pub words: Vec<String>,
    pub block: Option<Vec<SourceStatement>>,
    fate: Cell<StatementFate>,
    /// The route that its comment stands in.
    home: RefCell<Option<String>>,
    remark: RefCell<Option<String>>,
}

impl SourceStatement {
    pub fn new(
        place: SourcePlace,
        text: String,
        words: Vec<String>,
        block: Option<Vec<Self>>,
    ) -> Self {
        Self {
            place,
            text,
            words,
            block,
            fate: Cell::new(StatementFate::Untouched),
            home: RefCell::default(),
            remark: RefCell::default(),
        }
    }

    /// Its first word, or an empty text.
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the first.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The one argument that there is, or the first of several.
    pub fn argument(&self) -> &str {
        self.arguments().first().map_or("", String::as_str)
    }

    pub fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    pub fn fate(&self) -> StatementFate {
        self.fate.get()
    }

    pub fn is_untouched(&self) -> bool {
        self.fate() == StatementFate::Untouched
    }

    /// The draft says it.
    pub fn translated(&self) {
        self.fate.set(StatementFate::Translated);
    }

    /// Nothing has to be said, unless it was said already.
    pub fn needs_nothing(&self) {
        if self.is_untouched() {
            self.fate.set(StatementFate::NeedsNothing);
        }
    }

    /// The draft says some of it; why not all.
    pub fn in_part(&self, why: &str) {
        self.fate.set(StatementFate::InPart);
        self.remark.replace(Some(why.to_owned()));
    }

    /// Why it can't be said, for a statement that stays untouched; or how what the draft says differs.
    pub fn remarked(&self, why: &str) {
        self.remark.replace(Some(why.to_owned()));
    }

    /// Adds to what is remarked already.
    pub fn also_remarked(&self, words: &str) {
        match self.remark() {
            Some(known) if known.contains(words) => {}
            Some(known) => self.remarked(&format!("{known}; {words}")),
            None => self.remarked(words),
        }
    }

    pub fn remark(&self) -> Option<String> {
        self.remark.borrow().clone()
    }

    /// It and all in its block are said.
    pub fn translated_whole(&self) {
        self.translated();
        self.inside().iter().for_each(Self::translated_whole);
    }

    /// Nothing has to be said of it and of all in its block.
    pub fn needs_nothing_whole(&self) {
        self.needs_nothing();
        self.inside().iter().for_each(Self::needs_nothing_whole);
    }

    /// Its comment, and those of all in its block, stand in this route.
    pub fn belongs_to(&self, route: &str) {
        self.home.replace(Some(route.to_owned()));
        for one in self.inside() {
            one.belongs_to(route);
        }
    }

    pub fn home(&self) -> Option<String> {
        self.home.borrow().clone()
    }
}

/// What was noted of statements before one route looked at them. A directive of a server holds in
/// several routes, and each must see for itself what it has said of it.
pub struct EarlierNotes<'a> {
    notes: Vec<(&'a SourceStatement, StatementFate, Option<String>)>,
}

impl<'a> EarlierNotes<'a> {
    /// Puts the notes of these statements, and of those in their blocks, aside, but for those whose
    /// names are `settled`: what was noted of them holds for all routes.
    pub fn put_aside(statements: Vec<&'a SourceStatement>, settled: &[&str]) -> Self {
        let inside = |one: &'a SourceStatement| all(std::slice::from_ref(one));
        let every = statements.into_iter().flat_map(inside);
        let every = every.filter(|one| !settled.contains(&one.name()));
        let take = |one: &'a SourceStatement| {
            let fate = one.fate.replace(StatementFate::Untouched);
            (one, fate, one.remark.take())
        };
        Self {
            notes: every.map(take).collect(),
        }
    }

    /// Puts them back, whatever was noted since.
    pub fn restore(self) {
        for (one, fate, remark) in self.notes {
            one.fate.set(fate);
            one.remark.replace(remark);
        }
    }

    /// Joins them with what was noted since: what one route could not say is told, although another
    /// one could.
    pub fn join(self) {
        for (one, fate, remark) in self.notes {
            let both = [fate, one.fate.get()];
            let worst = [
                StatementFate::InPart,
                StatementFate::Translated,
                StatementFate::NeedsNothing,
            ];
            let worst = worst.into_iter().find(|one| both.contains(one));
            one.fate.set(worst.unwrap_or(StatementFate::Untouched));
            if let Some(remark) = remark {
                one.remark.replace(Some(remark));
            }
        }
    }
}

/// All statements, those in blocks included, in the order of the text.
pub fn all(statements: &[SourceStatement]) -> Vec<&SourceStatement> {
    let mut found = Vec::new();
    for one in statements {
        found.push(one);
        found.extend(all(one.inside()));
    }
    found
}

/// The name of a file as comments tell it: its path from the folder of the main file, and as it is for
/// one elsewhere.
pub fn name_within(folder: &Path, file: &Path) -> Rc<str> {
    let name = file.strip_prefix(folder).unwrap_or(file);
    name.to_string_lossy().into()
}
