//! Brings the text of a configuration into its canonical form, for `lamina fmt`: levels of two
//! spaces, lists below their key, one space behind a dash, no space at the end of lines, top-level
//! keys in the order of the reference. Comments, blank lines, quotes and flow style stay as they are.
//!
//! Lines are moved and never written anew. [`TextShape`] tells which of them begin a value; all
//! other lines follow the one that they belong to. Whether the meaning is the same is not argued but
//! looked at: both texts are parsed, and a text whose trees differ, or whose lines are not all
//! there, is refused.

use std::path::Path;

use super::problem::ConfigFinding;
use super::sources::ConfigSources;
use super::text_file::{read_text, without_mark};
use super::text_shape::{BlockTextIndent, LineRole, TextShape, spaces};
use super::tree::{YamlNode, YamlPosition, YamlValue};
use super::{ConfigProblems, MAX_BYTES, parser};

/// The top-level keys in the order of the reference.
const ORDER: [&str; 15] = [
    "version",
    "include",
    "server",
    "listeners",
    "upstreams",
    "cache",
    "defaults",
    "limits",
    "routes",
    "plugins",
    "bus",
    "acme",
    "purge_method",
    "admin",
    "telemetry",
];

/// The text of a file, and its canonical form. It need not be a valid configuration, and may be an
/// included file.
///
/// # Errors
/// If it can't be read, is not YAML, or of a form that can't be kept.
pub fn formatted_file(file: &Path) -> Result<(String, String), ConfigProblems> {
    let (name, text) = read_text(file)?;
    let canonical = formatted(&text, &name)?;
    Ok((text, canonical))
}

/// The canonical form of a text. `name` names it in messages.
fn formatted(text: &str, name: &str) -> Result<String, ConfigProblems> {
    let given = without_mark(text);
    let located = |finding: ConfigFinding| {
        ConfigProblems::one(finding.locate(&ConfigSources::new(name, given), None))
    };
    let before =
        parser::parse(given).map_err(|finding| match finding.message == parser::EMPTY {
            true => located(ConfigFinding::file(
                "there is nothing but comments to format",
            )),
            false => located(finding),
        })?;
    let mut lines = given.replace("\r\n", "\n").replace('\r', "\n");
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    let text = in_order(indented(&lines), &before);
    if text.len() > MAX_BYTES {
        return Err(located(ConfigFinding::file(GROWN)));
    }
    let kept = parser::parse(&text).map_err(|_| before.at);
    match kept.and_then(|after| same(&before, &after, TreeDepth::Top)) {
        Ok(()) if line_set(&lines) == line_set(&text) => Ok(text),
        Ok(()) => Err(located(ConfigFinding::file(REFUSED))),
        Err(at) => Err(located(ConfigFinding::at(at, REFUSED))),
    }
}

const GROWN: &str = "its canonical form is larger than 1 MiB, which no configuration may be; nothing was \
                     changed; expected smaller files, as by `include`";

const REFUSED: &str = "its form can't be brought into the canonical one without a change of meaning; \
                       nothing was changed; expected block style with spaces, as in the reference";

/// A level of the block structure: the column that its lines have, and the one that they get.
#[derive(Clone, Copy)]
struct BlockLevel {
    kind: BlockKind,
    old: usize,
    new: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    /// Items behind dashes.
    List,
    /// Keys, or a scalar on lines of its own.
    Keys,
}

/// The text with levels of two spaces.
fn indented(text: &str) -> String {
    let shape = TextShape::of(text);
    let mut writer = LineIndenter::default();
    for (n, line) in text.split('\n').enumerate() {
        match shape.role(n) {
            LineRole::Begins => writer.begins(line, shape.end(n)),
            LineRole::Comment => writer.waiting.push(line.trim_end().to_owned()),
            LineRole::Blank => writer.waiting.push(String::new()),
            LineRole::Follows => writer.follows(line, shape.end(n)),
            LineRole::BlockText(indent) => writer.block_text(line, indent),
            LineRole::Marker => writer.marker(line),
        }
    }
    writer.settle(None);
    let mut text = writer.out.join("\n");
    text.truncate(text.trim_end_matches('\n').len());
    text.push('\n');
    text
}

#[derive(Default)]
struct LineIndenter {
    out: Vec<String>,
    /// Comments and blank lines, whose level depends on what follows.
    waiting: Vec<String>,
    levels: Vec<BlockLevel>,
    /// Of the last line that began a value: its last key or scalar.
    last: Option<BlockLevel>,
    /// Of that line: what a block scalar in it is indented against, its key or the dash before it.
    holder: Option<BlockLevel>,
}

impl LineIndenter {
    fn marker(&mut self, line: &str) {
        self.settle(None);
        self.levels.clear();
        self.out.push(line.trim_end().to_owned());
    }

    /// A line with a dash, a key or a scalar.
    fn begins(&mut self, line: &str, end: LineEnd) {
        let around = self.levels.clone();
        let (mut column, mut rest) = (0, line);
        let (mut first, mut begin, mut dash) = (None, String::new(), None);
        loop {
            let body = rest.trim_start_matches(' ');
            column += rest.len() - body.len();
            let is_dash = body == "-" || body.starts_with("- ");
            let kind = match is_dash {
                true => BlockKind::List,
                false => BlockKind::Keys,
            };
            if body.is_empty() || (begin.ends_with("- ") && body.starts_with('#')) {
                rest = body;
                break;
            }
            let level = self.enter(kind, column);
            if first.is_none() {
                begin = " ".repeat(level.new);
                first = Some(level);
            }
            self.last = Some(level);
            if !is_dash {
                rest = body;
                break;
            }
            dash = Some(level);
            begin.push_str("- ");
            (column, rest) = (column + 1, &body[1..]);
        }
        self.holder = match is_block_header(rest) {
            true => dash.or(self.last),
            false => self.last,
        };
        self.settle(first.map(|first| (around, first)));
        let whole = format!("{begin}{rest}");
        self.out.push(end.of(&whole));
    }

    /// The level of what stands at a column.
    fn enter(&mut self, kind: BlockKind, column: usize) -> BlockLevel {
        // A list may stand at the column of its key, and ends with the next key there.
        let is_over = |level: &BlockLevel| {
            level.old > column
                || (level.old == column && level.kind == BlockKind::List && kind == BlockKind::Keys)
        };
        while self.levels.last().is_some_and(is_over) {
            self.levels.pop();
        }
        let above = self.levels.last().copied();
        match above {
            Some(level) if level.old == column && level.kind == kind => level,
            above => {
                let new = above.map_or(0, |above| above.new + 2);
                let level = BlockLevel {
                    kind,
                    old: column,
                    new,
                };
                self.levels.push(level);
                level
            }
        }
    }

    /// A line inside a scalar or a flow collection: it moves with the line where that began.
    fn follows(&mut self, line: &str, end: LineEnd) {
        let body = line.trim_start_matches(' ');
        let moved = match self.last {
            _ if body.is_empty() => 0,
            Some(last) => (spaces(line) + last.new).saturating_sub(last.old),
            None => spaces(line),
        };
        self.settle(None);
        self.out
            .push(end.of(&format!("{}{body}", " ".repeat(moved))));
    }

    /// A line of a block scalar, whose text is kept to the last space.
    fn block_text(&mut self, line: &str, indent: BlockTextIndent) {
        self.settle(None);
        let (above_old, above_new) = self.holder.map_or((0, 0), |level| (level.old, level.new));
        let (old, new) = match indent {
            BlockTextIndent::Stated(given) => {
                (given, (given + above_new).saturating_sub(above_old))
            }
            BlockTextIndent::Found(found) => (found, above_new + 2),
        };
        self.out.push(match line.get(old..) {
            Some(text) if spaces(line) >= old => format!("{}{text}", " ".repeat(new)),
            _ => String::new(),
        });
    }

    /// Writes the comments and blank lines that wait. `next` is the first level of the line after
    /// them, with the levels around them.
    fn settle(&mut self, next: Option<(Vec<BlockLevel>, BlockLevel)>) {
        let (around, next) = match next {
            Some((around, next)) => (around, Some(next)),
            None => (self.levels.clone(), None),
        };
        for line in std::mem::take(&mut self.waiting) {
            let (body, column) = (line.trim_start_matches(' '), spaces(&line));
            // The deepest level that it stands in; the next line's, where both are as deep.
            let levels = around.iter().copied().chain(next);
            let level = levels
                .filter(|level| level.old <= column)
                .max_by_key(|level| level.old);
            let moved = level.map_or(column, |level| level.new + column - level.old);
            self.out.push(match body.is_empty() {
                true => String::new(),
                false => format!("{}{body}", " ".repeat(moved)),
            });
        }
    }
}

/// What becomes of the spaces at the end of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnd {
    /// They are removed.
    Trimmed,
    /// They stay, inside quotes.
    Kept,
}

impl LineEnd {
    fn of(self, line: &str) -> String {
        match self {
            Self::Trimmed => line.trim_end_matches([' ', '\t']).to_owned(),
            Self::Kept => line.to_owned(),
        }
    }
}

/// A top-level key with its value, and the comments and blank lines before it.
struct TopLevelPart {
    key: String,
    blank: usize,
    lines: Vec<String>,
}

/// The text with its top-level keys in order. An alias must stay behind its anchor, so a text with
/// aliases keeps its order.
fn in_order(text: String, root: &YamlNode) -> String {
    let shape = TextShape::of(&text);
    let is_mapping = matches!(root.body, YamlValue::Map(_));
    if shape.has_alias || shape.has_marker() || !is_mapping {
        return text;
    }
    let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
    let mut begins: Vec<usize> = (0..lines.len())
        .filter(|n| shape.role(*n) == LineRole::Begins && !lines[*n].starts_with([' ', '{']))
        .collect();
    if begins.is_empty() {
        return text;
    }
    let header = header_lines(&lines[..begins[0]]);
    let keys: Vec<String> = begins.iter().map(|n| key_of(lines[*n])).collect();
    // Comments right above a key belong to it, and so do blank lines above these.
    for n in &mut begins {
        let above = lines[header..*n].iter().rev();
        let comments = above
            .clone()
            .take_while(|line| line.starts_with('#'))
            .count();
        let blank = above
            .skip(comments)
            .take_while(|line| line.is_empty())
            .count();
        *n -= comments + blank;
    }
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let mut parts: Vec<TopLevelPart> = begins
        .iter()
        .zip(ends)
        .zip(keys)
        .map(|((begin, end), key)| {
            let part = &lines[*begin..end];
            let blank = part.iter().take_while(|line| line.is_empty()).count();
            let lines = part[blank..]
                .iter()
                .map(|line| (*line).to_owned())
                .collect();
            TopLevelPart { key, blank, lines }
        })
        .collect();
    let first_key = parts[0].key.clone();
    let place = |part: &TopLevelPart| {
        let known = ORDER.iter().position(|key| *key == part.key);
        known.unwrap_or(ORDER.len())
    };
    parts.sort_by_key(place);
    // Blank lines go with the part below them, but those at the top stay there.
    if let Some(moved) = parts.iter().position(|part| part.key == first_key) {
        let (at_top, elsewhere) = (parts[moved].blank, parts[0].blank);
        parts[moved].blank = elsewhere;
        parts[0].blank = at_top;
    }
    let mut out: Vec<String> = lines[..header]
        .iter()
        .map(|line| (*line).to_owned())
        .collect();
    for part in parts {
        out.extend(std::iter::repeat_n(String::new(), part.blank));
        out.extend(part.lines);
    }
    format!("{}\n", out.join("\n"))
}

/// How many of the lines before the first key are no comment of that key: those before a blank
/// line, or a first line that tells editors what the file is.
fn header_lines(before: &[&str]) -> usize {
    if let Some(blank) = before.iter().position(|line| line.is_empty()) {
        return blank;
    }
    let for_editors = ["# yaml-language-server:", "#!"];
    let first = before
        .first()
        .is_some_and(|line| for_editors.iter().any(|begin| line.starts_with(begin)));
    usize::from(first)
}

/// The key of a line that begins with one.
fn key_of(line: &str) -> String {
    let key = line.split(':').next().unwrap_or_default();
    key.trim().trim_matches(['"', '\'']).to_owned()
}

/// Whether a block scalar begins here, perhaps behind an anchor.
fn is_block_header(value: &str) -> bool {
    let behind = value
        .strip_prefix('&')
        .and_then(|anchor| anchor.split_once(' '));
    let value = behind.map_or(value, |(_, value)| value.trim_start());
    value.starts_with(['|', '>'])
}

/// How deep a mapping is: at the top, the order of the keys may change.
#[derive(Clone, Copy)]
enum TreeDepth {
    Top,
    Below,
}

/// Whether two trees mean the same, or else where the first one differs.
fn same(before: &YamlNode, after: &YamlNode, depth: TreeDepth) -> Result<(), YamlPosition> {
    let below = |before, after| same(before, after, TreeDepth::Below);
    match (&before.body, &after.body) {
        (YamlValue::Scalar(a), YamlValue::Scalar(b)) if a == b => Ok(()),
        (YamlValue::List(a), YamlValue::List(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| below(a, b))
        }
        (YamlValue::Map(a), YamlValue::Map(b)) if a.len() == b.len() => match depth {
            TreeDepth::Top => a.iter().try_for_each(|(key, value)| {
                after
                    .get(&key.name)
                    .map_or(Err(key.at), |other| below(value, other))
            }),
            TreeDepth::Below => {
                a.iter()
                    .zip(b)
                    .try_for_each(|((key, value), (other_key, other))| {
                        match key.name == other_key.name {
                            true => below(value, other),
                            false => Err(key.at),
                        }
                    })
            }
        },
        _ => Err(before.at),
    }
}

/// The lines of a text without their places: what no formatting may lose.
fn line_set(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(without_spaces).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

/// A line without the spaces around it and behind its first dashes.
fn without_spaces(line: &str) -> String {
    let (mut dashes, mut rest) = (String::new(), line.trim());
    while let Some(behind) = rest.strip_prefix("- ") {
        dashes.push_str("- ");
        rest = behind.trim_start();
    }
    dashes + rest
}

#[cfg(test)]
mod tests;
