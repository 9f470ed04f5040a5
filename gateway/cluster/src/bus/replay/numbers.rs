//! Which numbers of a growing count have come, in bounded memory.

use std::collections::BTreeSet;

/// The numbers that have come.
pub struct SequenceWindow {
    newest: Option<u64>,
    /// Numbers below the newest that did not come yet.
    missing: BTreeSet<u64>,
    /// The most missing numbers that are remembered; the newest ones are kept.
    most: usize,
}

impl SequenceWindow {
    pub fn new(most: usize) -> Self {
        Self {
            newest: None,
            missing: BTreeSet::new(),
            most,
        }
    }

    /// If nothing has come yet: no number up to this one will be accepted.
    pub fn begin(&mut self, number: u64) {
        self.newest.get_or_insert(number);
    }

    /// Takes this number, which can be taken only once. True: it was not taken before.
    pub fn take(&mut self, number: u64) -> bool {
        match self.newest {
            None => self.newest = Some(number),
            Some(newest) if number > newest => {
                let kept = number.saturating_sub(self.most as u64);
                self.missing.extend((newest + 1).max(kept)..number);
                while self.missing.len() > self.most {
                    self.missing.pop_first();
                }
                self.newest = Some(number);
            }
            Some(_) => return self.missing.remove(&number),
        }
        true
    }

    /// Lets this number be taken once more.
    pub fn give_back(&mut self, number: u64) {
        self.missing.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_taken_once_and_not_below_the_first() {
        let mut numbers = SequenceWindow::new(3);
        assert!(numbers.take(10));
        assert!(!numbers.take(9) && !numbers.take(10));
        assert!(numbers.take(13) && numbers.take(11) && numbers.take(12));
        assert!(!numbers.take(11) && !numbers.take(12) && !numbers.take(13));
        assert!(numbers.take(1 << 40), "a jump costs no more than the bound");
        assert_eq!(numbers.missing.len(), 3);
        assert!(numbers.take(u64::MAX) && !numbers.take(u64::MAX));
        numbers.give_back(u64::MAX);
        assert!(numbers.take(u64::MAX));
    }

    #[test]
    fn what_was_counted_before_the_first_is_not_to_come() {
        let mut numbers = SequenceWindow::new(3);
        numbers.begin(5);
        numbers.begin(2);
        assert!(!numbers.take(5) && numbers.take(6));
    }

    proptest! {
        #[test]
        fn no_number_is_taken_twice(all in prop::collection::vec(0..40_u64, 0..200), most in 0..50_usize) {
            let (mut numbers, mut taken) = (SequenceWindow::new(most), HashSet::new());
            for number in all {
                if numbers.take(number) {
                    prop_assert!(taken.insert(number));
                }
                prop_assert!(numbers.missing.len() <= most);
            }
        }
    }
}
