//! The lines in which two texts differ, for `lamina fmt --check`. Secrets in them are hidden.

use super::excerpt;

/// The most comparisons of lines; texts that differ more are shown as one change.
const MAX_COMPARED: usize = 4_000_000;

/// Lines that are replaced by others.
#[derive(PartialEq, Eq, Debug)]
pub struct ChangedLines {
    /// The line of the first text at which they begin, from 1.
    pub line: usize,
    /// What is there.
    pub removed: Vec<String>,
    /// What belongs there.
    pub added: Vec<String>,
}

/// What makes `after` of `before`, from the top down.
pub fn changes(before: &str, after: &str) -> Vec<ChangedLines> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let (shown_old, shown_new) = (excerpt::masked_lines(before), excerpt::masked_lines(after));
    let mut found = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    for (kept_old, kept_new) in kept(&old, &new).into_iter().chain([(old.len(), new.len())]) {
        if (at_old, at_new) != (kept_old, kept_new) {
            found.push(ChangedLines {
                line: at_old + 1,
                removed: shown_old[at_old..kept_old].to_vec(),
                added: shown_new[at_new..kept_new].to_vec(),
            });
        }
        (at_old, at_new) = (kept_old + 1, kept_new + 1);
    }
    found
}

/// The pairs of equal lines of a longest common subsequence.
fn kept(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let begin = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[begin..], &new[begin..]);
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = pairs.take_while(|(a, b)| a == b).count();
    let old_middle = &old_rest[..old_rest.len() - end];
    let new_middle = &new_rest[..new_rest.len() - end];
    let mut pairs: Vec<_> = (0..begin).map(|n| (n, n)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) <= MAX_COMPARED {
        let middle = longest(old_middle, new_middle).into_iter();
        pairs.extend(middle.map(|(a, b)| (begin + a, begin + b)));
    }
    let ends = (1..=end).rev();
    pairs.extend(ends.map(|n| (old.len() - n, new.len() - n)));
    pairs
}

fn longest(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    // How many lines the rests from here on have in common.
    let mut common = vec![0u32; (old.len() + 1) * width];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            common[a * width + b] = match old[a] == new[b] {
                true => common[(a + 1) * width + b + 1] + 1,
                false => common[(a + 1) * width + b].max(common[a * width + b + 1]),
            };
        }
    }
    let (mut pairs, mut a, mut b) = (Vec::new(), 0, 0);
    while a < old.len() && b < new.len() {
        if old[a] == new[b] {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if common[(a + 1) * width + b] >= common[a * width + b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: &str, after: &str) -> String {
        let lines = changes(before, after).into_iter().flat_map(|change| {
            let line = change.line;
            let removed = change
                .removed
                .into_iter()
                .map(move |text| format!("{line}-{text}"));
            removed.chain(
                change
                    .added
                    .into_iter()
                    .map(move |text| format!("{line}+{text}")),
            )
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lines_that_stay_are_not_shown() {
        assert_eq!(shown("a\nb\nc\nd\n", "a\nc\nx\nd\ne\n"), "2-b 4+x 5+e");
        assert_eq!(shown("a\nb\n", "a\nb\n"), "");
        assert_eq!(shown("", "a\n"), "1+a");
        assert_eq!(shown("a\na\n", "a\n"), "2-a");
    }

    #[test]
    fn secrets_are_hidden() {
        let said = shown("admin:\n    token: s3cret\n", "admin:\n  token: s3cret\n");
        assert_eq!(said, "2-    token: *** 2+  token: ***");
    }
}
