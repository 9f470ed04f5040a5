//! A VCL as a whole: its subroutines, backends and lists, and how its statements read.

use serde_json::{Value, json};

use super::super::source::SourceStatement;

/// What a VCL declares.
pub struct VclProgram<'a> {
    pub statements: &'a [SourceStatement],
}

impl<'a> VclProgram<'a> {
    /// The statements of a subroutine, of all its definitions.
    pub fn sub(&self, name: &str) -> Vec<&'a SourceStatement> {
        let subs = self.declared("sub", name);
        subs.flat_map(SourceStatement::inside).collect()
    }

    /// Declarations of this kind and name.
    pub fn declared(&self, kind: &str, name: &str) -> impl Iterator<Item = &'a SourceStatement> {
        let wanted = |one: &&SourceStatement| one.name() == kind && one.argument() == name;
        let found: Vec<&SourceStatement> = self.statements.iter().filter(wanted).collect();
        found.into_iter()
    }

    /// The networks of an `acl`; what is no address is left untouched.
    pub fn networks(&self, name: &str) -> AclNetworks {
        let mut found = AclNetworks::default();
        for block in self.declared("acl", name) {
            block.translated();
            for entry in block.inside() {
                found.entry(entry);
            }
        }
        found.listed = without_repetitions(found.listed);
        found
    }
}

/// What an `acl` lists.
#[derive(Default)]
pub struct AclNetworks {
    listed: Vec<String>,
    /// Those with `!`.
    excluded: Vec<String>,
    /// Entries that are no addresses.
    unread: Vec<AclEntryKind>,
}

/// What an entry of an `acl` does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AclEntryKind {
    Lists,
    Excludes,
}

impl AclNetworks {
    fn entry(&mut self, entry: &SourceStatement) {
        let text = entry.text.replace(['"', ' ', '(', ')'], "");
        let (kind, text) = match text.strip_prefix('!') {
            Some(rest) => (AclEntryKind::Excludes, rest),
            None => (AclEntryKind::Lists, text.as_str()),
        };
        let networks = networks_of(text);
        if networks.is_empty() {
            entry.remarked("networks are addresses");
            return self.unread.push(kind);
        }
        entry.translated();
        match kind {
            AclEntryKind::Lists => self.listed.extend(networks),
            AclEntryKind::Excludes => self.excluded.extend(networks),
        }
    }

    /// The networks that are listed and have no exception; none where an exception can't be said.
    pub fn plain(&self) -> &[String] {
        match self.excluded.is_empty() && !self.unread.contains(&AclEntryKind::Excludes) {
            true => &self.listed,
            false => &[],
        }
    }

    /// `access` that lets only these in. Networks that can't be read may not ask.
    pub fn allowing(&self) -> Option<Value> {
        let is_said = !self.listed.is_empty() && !self.unread.contains(&AclEntryKind::Excludes);
        is_said.then(|| match self.excluded.is_empty() {
            true => json!({ "allow": self.listed }),
            false => json!({ "allow": self.listed, "deny": self.excluded }),
        })
    }

    /// `access` that keeps these out: only if all of them can be said.
    pub fn denying(&self) -> Option<Value> {
        let is_said = !self.listed.is_empty() && self.unread.is_empty();
        // What is excepted is kept out as well.
        is_said.then(|| json!({ "deny": self.listed }))
    }
}

fn without_repetitions(list: Vec<String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for one in list {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// An address, with or without its length, or `localhost`.
fn networks_of(text: &str) -> Vec<String> {
    if text == "localhost" {
        return vec!["127.0.0.1/32".to_owned(), "::1/128".to_owned()];
    }
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return Vec::new();
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        "" => Some(most),
        bits => bits.parse::<u8>().ok().filter(|bits| *bits <= most),
    };
    bits.map(|bits| format!("{address}/{bits}"))
        .into_iter()
        .collect()
}

/// `set X = Y`: both sides, the left one in small letters. In `set X += Y`, the operator is part of the
/// right side, which so is no plain value.
pub fn assignment(one: &SourceStatement) -> Option<(String, &str)> {
    let rest = one.text.strip_prefix("set ")?;
    let (left, right) = rest.split_once('=')?;
    let variable = left.trim_end_matches(['+', '-', '*', '/']);
    let right = match variable.len() == left.len() {
        true => right,
        false => &rest[variable.len()..],
    };
    Some((variable.trim().to_lowercase(), right.trim()))
}

/// `unset X` and `remove X`: what, in small letters.
pub fn removed_variable(one: &SourceStatement) -> Option<String> {
    let rest = one
        .text
        .strip_prefix("unset ")
        .or_else(|| one.text.strip_prefix("remove "))?;
    Some(rest.trim().to_lowercase())
}

/// What is in the parentheses of `return (…)`, without spaces at its ends.
pub fn returned_step(one: &SourceStatement) -> Option<&str> {
    let rest = one.text.strip_prefix("return")?.trim();
    rest.strip_prefix('(')?.strip_suffix(')').map(str::trim)
}

/// A text in quotation marks that is nothing else.
pub fn quoted_text(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains('"')).then_some(inside)
}

/// The arguments of a call: `regsuball(a, "b", "c")`.
pub fn call_arguments<'a>(text: &'a str, function: &str) -> Option<Vec<&'a str>> {
    let rest = text.trim().strip_prefix(function)?.trim();
    let inside = rest.strip_prefix('(')?.strip_suffix(')')?;
    let mut found = Vec::new();
    let (mut begun, mut depth, mut is_quoted) = (0, 0_usize, false);
    for (at, c) in inside.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            ',' if !is_quoted && depth == 0 => {
                found.push(inside[begun..at].trim());
                begun = at + 1;
            }
            _ => {}
        }
    }
    found.push(inside[begun..].trim());
    Some(found)
}

/// A duration of VCL as Lamina writes it.
pub fn written_duration(text: &str) -> Option<String> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    number.parse::<f64>().ok()?;
    match unit {
        "ms" | "s" | "m" | "h" | "d" => Some(text.to_owned()),
        "w" => Some(format!("{}d", number.parse::<f64>().ok()? * 7.0)),
        "y" => Some(format!("{}d", number.parse::<f64>().ok()? * 365.0)),
        _ => None,
    }
}

/// A duration of VCL in seconds.
pub fn duration_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(at.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "w" => 604_800.0,
        "y" => 31_536_000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Whether a statement is `if`, `elseif` or `else`.
pub fn branch_kind(one: &SourceStatement) -> Option<BranchKind> {
    one.block.as_ref()?;
    match one.name() {
        "if" => Some(BranchKind::If),
        "elseif" | "elsif" | "elif" => Some(BranchKind::Else),
        "else" => Some(BranchKind::Else),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BranchKind {
    If,
    /// `else`, with a condition or without.
    Else,
}
