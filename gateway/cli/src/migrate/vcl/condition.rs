//! The conditions of a VCL as trees.

/// How deep conditions may be nested; deeper ones count as unreadable.
const DEEPEST: usize = 64;

/// A condition. Negations stand at its comparisons alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VclCondition {
    Any(Vec<VclCondition>),
    All(Vec<VclCondition>),
    /// A comparison; the right side is without quotation marks.
    Compared {
        left: String,
        operator: String,
        right: String,
    },
    /// That something is there, or true.
    Set(String),
    /// That something is not there, or false.
    Unset(String),
}

/// What is left of a condition where some of its comparisons are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReducedCondition {
    Always,
    Never,
    If(VclCondition),
}

impl VclCondition {
    /// That of `if (…)`; none for `else`, and where it can't be read.
    pub fn of(text: &str) -> Option<Self> {
        let at = text.find('(')?;
        let inside = text[at..].trim().strip_prefix('(')?.strip_suffix(')')?;
        let mut reader = ConditionReader {
            tokens: tokens(inside),
            depth: 0,
        };
        reader.tokens.reverse();
        let condition = reader.any()?;
        reader.tokens.is_empty().then_some(condition)
    }

    /// Its contrary.
    pub fn negated(&self) -> Self {
        let all = |list: &[Self]| list.iter().map(Self::negated).collect();
        match self {
            Self::Any(list) => Self::All(all(list)),
            Self::All(list) => Self::Any(all(list)),
            Self::Set(left) => Self::Unset(left.clone()),
            Self::Unset(left) => Self::Set(left.clone()),
            Self::Compared {
                left,
                operator,
                right,
            } => Self::Compared {
                left: left.clone(),
                operator: contrary(operator),
                right: right.clone(),
            },
        }
    }

    /// That all of these hold.
    pub fn all_of(list: Vec<Self>) -> Option<Self> {
        let flat = |one| match one {
            Self::All(inside) => inside,
            one => vec![one],
        };
        let list: Vec<Self> = list.into_iter().flat_map(flat).collect();
        (!list.is_empty()).then(|| one_or(list, Self::All))
    }

    /// What is left of it where `known` tells whether a comparison holds.
    pub fn reduced(&self, known: &dyn Fn(&Self) -> Option<bool>) -> ReducedCondition {
        let (list, ends, several): (_, _, fn(Vec<Self>) -> Self) = match self {
            Self::Any(list) => (list, ReducedCondition::Always, Self::Any),
            Self::All(list) => (list, ReducedCondition::Never, Self::All),
            leaf => {
                return match known(leaf) {
                    Some(true) => ReducedCondition::Always,
                    Some(false) => ReducedCondition::Never,
                    None => ReducedCondition::If(leaf.clone()),
                };
            }
        };
        let mut rest = Vec::new();
        for one in list {
            match one.reduced(known) {
                ReducedCondition::If(condition) => rest.push(condition),
                decided if decided == ends => return ends,
                _ => {}
            }
        }
        match (rest.is_empty(), ends) {
            (false, _) => ReducedCondition::If(one_or(rest, several)),
            (true, ReducedCondition::Always) => ReducedCondition::Never,
            (true, _) => ReducedCondition::Always,
        }
    }

    /// The alternatives of which one must hold.
    pub fn alternatives(&self) -> Vec<&Self> {
        match self {
            Self::Any(list) => list.iter().flat_map(Self::alternatives).collect(),
            one => vec![one],
        }
    }

    /// The conditions that must hold together.
    pub fn together(&self) -> Vec<&Self> {
        match self {
            Self::All(list) => list.iter().flat_map(Self::together).collect(),
            one => vec![one],
        }
    }

    /// All comparisons in it.
    pub fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Any(list) | Self::All(list) => list.iter().flat_map(Self::leaves).collect(),
            leaf => vec![leaf],
        }
    }

    /// What is compared, in small letters.
    pub fn left(&self) -> String {
        match self {
            Self::Compared { left, .. } | Self::Set(left) | Self::Unset(left) => {
                left.to_lowercase()
            }
            _ => String::new(),
        }
    }

    /// Whether all of it is about this.
    pub fn is_about(&self, what: &str) -> bool {
        self.leaves().iter().all(|leaf| leaf.left() == what)
    }

    /// Left side in small letters, operator and right side of a comparison.
    pub fn comparison(&self) -> Option<(String, &str, &str)> {
        match self {
            Self::Compared {
                left,
                operator,
                right,
            } => Some((left.to_lowercase(), operator, right)),
            _ => None,
        }
    }
}

/// Marks an operator whose right side is no plain text, so that it is not taken for one.
const VARIABLE: &str = " variable";

/// Whether a variable holds text, so that what it is compared with stands in quotation marks.
fn is_text(left: &str) -> bool {
    let small = left.to_lowercase();
    small.contains(".http.") || small.ends_with(".url") || small.ends_with(".method")
}

/// The operator that says the contrary.
fn contrary(operator: &str) -> String {
    let (plain, kind) = match operator.strip_suffix(VARIABLE) {
        Some(plain) => (plain, VARIABLE),
        None => (operator, ""),
    };
    format!("{}{kind}", contrary_of_plain(plain))
}

fn contrary_of_plain(operator: &str) -> &'static str {
    match operator {
        "==" => "!=",
        "!=" => "==",
        "~" => "!~",
        "!~" => "~",
        "<" => ">=",
        ">=" => "<",
        ">" => "<=",
        _ => ">",
    }
}

const OPERATORS: [&str; 8] = ["==", "!=", "!~", "<=", ">=", "~", "<", ">"];

/// Words, texts, operators and parentheses. A call is one word.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found: Vec<String> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let two: String = chars[at..(at + 2).min(chars.len())].iter().collect();
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
        } else if c == '"' {
            let end = (at + 1..chars.len()).find(|n| chars[*n] == '"');
            let end = end.unwrap_or(chars.len() - 1);
            found.push(chars[at..=end].iter().collect());
            at = end + 1;
        } else if ["&&", "||", "==", "!=", "!~", "<=", ">="].contains(&two.as_str()) {
            found.push(two);
            at += 2;
        } else if "()!~<>".contains(c) {
            found.push(c.to_string());
            at += 1;
        } else {
            let begun = at;
            let mut depth = 0_usize;
            while at < chars.len() {
                match chars[at] {
                    '(' => depth += 1,
                    ')' if depth == 0 => break,
                    ')' => depth -= 1,
                    c if depth == 0 && (c.is_whitespace() || "!~<>=&|\"".contains(c)) => break,
                    _ => {}
                }
                at += 1;
            }
            at = at.max(begun + 1);
            found.push(chars[begun..at].iter().collect());
        }
    }
    found
}

struct ConditionReader {
    /// In reverse.
    tokens: Vec<String>,
    /// How many parentheses are open.
    depth: usize,
}

impl ConditionReader {
    fn looks_at(&self, token: &str) -> bool {
        self.tokens.last().is_some_and(|next| next == token)
    }

    fn any(&mut self) -> Option<VclCondition> {
        let mut list = vec![self.all()?];
        while self.looks_at("||") {
            self.tokens.pop();
            list.push(self.all()?);
        }
        Some(one_or(list, VclCondition::Any))
    }

    fn all(&mut self) -> Option<VclCondition> {
        let mut list = vec![self.one()?];
        while self.looks_at("&&") {
            self.tokens.pop();
            list.push(self.one()?);
        }
        Some(one_or(list, VclCondition::All))
    }

    fn one(&mut self) -> Option<VclCondition> {
        let mut is_negated = false;
        while self.looks_at("!") {
            self.tokens.pop();
            is_negated = !is_negated;
        }
        let one = self.positive()?;
        Some(if is_negated { one.negated() } else { one })
    }

    fn positive(&mut self) -> Option<VclCondition> {
        if self.looks_at("(") {
            self.tokens.pop();
            self.depth += 1;
            if self.depth > DEEPEST {
                return None;
            }
            let inside = self.any()?;
            self.depth -= 1;
            return (self.tokens.pop()? == ")").then_some(inside);
        }
        let left = self.operand()?;
        let operator = self.tokens.last().cloned().unwrap_or_default();
        if !OPERATORS.contains(&operator.as_str()) {
            return Some(VclCondition::Set(left));
        }
        self.tokens.pop();
        let right = self.operand()?;
        let quoted = right
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let quoted = quoted.filter(|text| !text.contains('"'));
        let operator = match quoted {
            None if is_text(&left) => format!("{operator}{VARIABLE}"),
            _ => operator,
        };
        let right = quoted.unwrap_or(&right).to_owned();
        Some(VclCondition::Compared {
            left,
            operator,
            right,
        })
    }

    /// Words up to an operator or a parenthesis.
    fn operand(&mut self) -> Option<String> {
        let mut words = Vec::new();
        while let Some(next) = self.tokens.last() {
            let ends = ["&&", "||", "(", ")", "!"].contains(&next.as_str());
            if ends || OPERATORS.contains(&next.as_str()) {
                break;
            }
            words.extend(self.tokens.pop());
        }
        (!words.is_empty()).then(|| words.join(" "))
    }
}

fn one_or(
    mut list: Vec<VclCondition>,
    several: fn(Vec<VclCondition>) -> VclCondition,
) -> VclCondition {
    match list.len() {
        1 => list.remove(0),
        _ => several(list),
    }
}
