//! A statement of the configuration that is translated: where it stands, what it says, and what
//! became of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::Path;
use std::rc::Rc;

/// A line of a file.
#[derive(Clone)]
pub struct SourcePlace {
    pub file: Rc<str>,
    pub line: usize,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
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

/// All statements, those in blocks included, in the order of the text.
pub fn all(statements: &[SourceStatement]) -> Vec<&SourceStatement> {
    let mut found = Vec::new();
    for one in statements {
        found.push(one);
        found.extend(all(one.inside()));
    }
    found
}

/// The name of a file as comments tell it: its last part.
pub fn short_name(file: &Path) -> Rc<str> {
    let name = file.file_name().unwrap_or(file.as_os_str());
    name.to_string_lossy().into()
}
