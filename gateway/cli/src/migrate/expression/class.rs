//! A class of characters, as it stands in an expression.

/// A class of characters in an expression.
pub struct CharacterClass {
    is_negated: bool,
    /// First and last characters of what is in it.
    ranges: Vec<(char, char)>,
    /// This is true if the class has a name, as `\D`, that stands for all characters but a few.
    has_rest: bool,
    /// The number of characters that the class takes in the expression, without the opening bracket.
    pub length: usize,
}

impl CharacterClass {
    pub fn read(rest: &[char]) -> Self {
        let is_negated = rest.first() == Some(&'^');
        let begun = usize::from(is_negated);
        let mut class = Self {
            is_negated,
            ranges: Vec::new(),
            has_rest: false,
            length: begun,
        };
        while let Some(&c) = rest.get(class.length) {
            let is_first = class.length == begun;
            class.length += 1;
            match c {
                ']' if !is_first => break,
                '\\' => {
                    match rest.get(class.length) {
                        Some('D' | 'S' | 'W') => class.has_rest = true,
                        Some('d' | 's' | 'w') | None => {}
                        Some(&c) => class.ranges.push((c, c)),
                    }
                    class.length += 1;
                }
                c => match (rest.get(class.length), rest.get(class.length + 1)) {
                    (Some('-'), Some(&last)) if last != ']' => {
                        class.ranges.push((c, last));
                        class.length += 2;
                    }
                    _ => class.ranges.push((c, c)),
                },
            }
        }
        class
    }

    pub fn may_hold(&self, marks: &str) -> bool {
        let has = |mark: char| {
            let mut ranges = self.ranges.iter();
            ranges.any(|(first, last)| (*first..=*last).contains(&mark))
        };
        match self.is_negated {
            true => self.has_rest || !marks.chars().all(has),
            false => self.has_rest || marks.chars().any(has),
        }
    }
}
