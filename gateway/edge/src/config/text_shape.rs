//! What each line of a YAML text is part of, by the events of the parser: a line begins a value, or
//! belongs to one that began above.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::format::LineEnd;

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineRole {
    /// A dash, a key or a scalar begins in it, and nothing that began above goes on.
    Begins,
    Comment,
    Blank,
    /// It is inside a scalar, or inside a flow collection.
    Follows,
    /// It is text of a block scalar.
    BlockText(BlockTextIndent),
    /// It begins or ends a document, or is a directive.
    Marker,
}

/// How far the text of a block scalar is indented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockTextIndent {
    /// By so many spaces, as its first line is.
    Found(usize),
    /// By so many spaces, as its header says: so many more than what it belongs to.
    Stated(usize),
}

/// The roles of all lines.
pub struct TextShape {
    roles: Vec<LineRole>,
    ends: Vec<LineEnd>,
    /// Whether values are referred to.
    pub has_alias: bool,
}

impl TextShape {
    /// The shape of a text that the parser accepts, and that ends with a line break.
    pub fn of(text: &str) -> Self {
        let lines: Vec<&str> = text.split('\n').collect();
        let mut shape = Self {
            roles: lines.iter().map(|line| role_alone(line)).collect(),
            ends: vec![LineEnd::Trimmed; lines.len()],
            has_alias: false,
        };
        let mut parser = Parser::new_from_str(text);
        // The lines in which collections began; none for those in block style.
        let mut open: Vec<Option<usize>> = Vec::new();
        while let Some(Ok((event, span))) = parser.next_event() {
            let (first, last) = (span.start.line() - 1, span.end.line().max(1) - 1);
            match event {
                Event::Alias(_) => shape.has_alias = true,
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    open.push(is_flow(&lines, span).then_some(first));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(Some(first)) = open.pop() {
                        shape.follow(first, last);
                    }
                }
                Event::Scalar(text, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                    let has_text = !text.trim_matches('\n').is_empty();
                    if has_text {
                        shape.block_text(&lines, span);
                    }
                }
                Event::Scalar(_, style, ..) => {
                    shape.follow(first, last);
                    if style != ScalarStyle::Plain {
                        shape.ends[first..last].fill(LineEnd::Kept);
                    }
                }
                _ => {}
            }
        }
        shape
    }

    /// What the line with this number is, from 0.
    pub fn role(&self, line: usize) -> LineRole {
        self.roles.get(line).copied().unwrap_or(LineRole::Blank)
    }

    /// What becomes of the spaces at its end.
    pub fn end(&self, line: usize) -> LineEnd {
        self.ends.get(line).copied().unwrap_or(LineEnd::Trimmed)
    }

    /// Whether there is more in the text than the lines of one document.
    pub fn has_marker(&self) -> bool {
        self.roles.contains(&LineRole::Marker)
    }

    /// The lines after the first belong to it.
    fn follow(&mut self, first: usize, last: usize) {
        for role in self.roles.iter_mut().take(last + 1).skip(first + 1) {
            *role = LineRole::Follows;
        }
    }

    /// The text of a block scalar that has any: the parser tells its first character and the line
    /// after it.
    fn block_text(&mut self, lines: &[&str], span: Span) {
        let (first, column) = (span.start.line() - 1, span.start.col());
        let above = lines[..first]
            .iter()
            .rposition(|line| !line.trim().is_empty());
        let header = above.unwrap_or(first);
        let texts = header + 1..(span.end.line() - 1).min(lines.len());
        let indent = match states_indent(lines[header]) {
            true => BlockTextIndent::Stated(column),
            false => BlockTextIndent::Found(column),
        };
        if let Some(roles) = self.roles.get_mut(texts) {
            roles.fill(LineRole::BlockText(indent));
        }
    }
}

/// Whether the header of a block scalar has a number, as in `|2-`.
fn states_indent(line: &str) -> bool {
    let code = line.split(" #").next().unwrap_or(line).trim_end();
    let header = code.trim_end_matches(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
    code[header.len()..].contains(|c: char| c.is_ascii_digit())
}

/// How many spaces a line begins with.
pub fn spaces(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// What a line is if it stands alone.
fn role_alone(line: &str) -> LineRole {
    let body = line.trim();
    let is_marker = |mark: &str| line == mark || line.starts_with(&format!("{mark} "));
    match () {
        () if body.is_empty() => LineRole::Blank,
        () if body.starts_with('#') => LineRole::Comment,
        () if is_marker("---") || is_marker("...") || line.starts_with('%') => LineRole::Marker,
        () => LineRole::Begins,
    }
}

/// Whether a collection begins with a bracket, perhaps behind an anchor. A list at the column of its
/// key has an empty span, at its first item, which may itself begin with one.
fn is_flow(lines: &[&str], span: Span) -> bool {
    let (begin, end) = (span.start, span.end);
    let is_empty = (begin.line(), begin.col()) == (end.line(), end.col());
    let line = lines.get(begin.line() - 1).copied().unwrap_or_default();
    let from: String = line.chars().skip(begin.col()).collect();
    let value = match from.strip_prefix('&') {
        Some(anchor) => anchor
            .split_once(' ')
            .map_or("", |(_, value)| value.trim_start()),
        None => &from,
    };
    !is_empty && value.starts_with(['{', '['])
}
