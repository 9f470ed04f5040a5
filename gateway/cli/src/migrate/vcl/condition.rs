//! The conditions of a VCL as trees.

/// A condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VclCondition {
    Any(Vec<VclCondition>),
    All(Vec<VclCondition>),
    Not(Box<VclCondition>),
    /// A comparison; the right side is without quotation marks.
    Compared {
        left: String,
        operator: String,
        right: String,
    },
    /// That something is there, or true.
    Set(String),
}

impl VclCondition {
    /// That of `if (…)`; none for `else`, and where it can't be read.
    pub fn of(text: &str) -> Option<Self> {
        let at = text.find('(')?;
        let inside = text[at..].trim().strip_prefix('(')?.strip_suffix(')')?;
        let mut reader = ConditionReader {
            tokens: tokens(inside),
        };
        reader.tokens.reverse();
        let condition = reader.any()?;
        reader.tokens.is_empty().then_some(condition)
    }

    /// The alternatives of which one must hold.
    pub fn alternatives(&self) -> Vec<&Self> {
        match self {
            Self::Any(list) => list.iter().flat_map(Self::alternatives).collect(),
            one => vec![one],
        }
    }

    /// All comparisons in it.
    pub fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Any(list) | Self::All(list) => list.iter().flat_map(Self::leaves).collect(),
            Self::Not(inside) => inside.leaves(),
            leaf => vec![leaf],
        }
    }

    /// What is compared, in small letters.
    pub fn left(&self) -> String {
        match self {
            Self::Compared { left, .. } | Self::Set(left) => left.to_lowercase(),
            _ => String::new(),
        }
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
        if self.looks_at("!") {
            self.tokens.pop();
            return Some(VclCondition::Not(Box::new(self.one()?)));
        }
        if self.looks_at("(") {
            self.tokens.pop();
            let inside = self.any()?;
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
        let right = quoted
            .filter(|text| !text.contains('"'))
            .unwrap_or(&right)
            .to_owned();
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
