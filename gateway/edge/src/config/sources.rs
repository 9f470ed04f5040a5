//! The texts that one configuration is read from: the main file, and those that it includes.
//!
//! Positions name a text by its number; so each message shows file, line and excerpt of the text
//! where its value stands, whatever trees have been joined.

/// The number of the main file.
pub const MAIN: usize = 0;

/// The texts by their numbers; there is always a main one.
pub struct ConfigSources(Vec<SourceText>);

struct SourceText {
    name: String,
    text: String,
}

impl ConfigSources {
    /// The main file, whose name is as it was given.
    pub fn new(name: &str, text: &str) -> Self {
        let mut sources = Self(Vec::new());
        sources.add(name, text.to_owned());
        sources
    }

    /// Adds a text, and tells its number.
    pub fn add(&mut self, name: &str, text: String) -> usize {
        let name = name.to_owned();
        self.0.push(SourceText { name, text });
        self.0.len() - 1
    }

    /// The name of a source and its text. The main one stands in for a number that there isn't.
    pub fn name_and_text(&self, number: usize) -> (&str, &str) {
        let source = self.0.get(number).or_else(|| self.0.first());
        source.map_or(("", ""), |source| (&source.name, &source.text))
    }

    /// The name of a source.
    pub fn name(&self, number: usize) -> &str {
        self.name_and_text(number).0
    }

    /// The names of all, in the order in which they were read.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|source| source.name.as_str())
    }

    /// The bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|source| source.text.len()).sum()
    }
}
