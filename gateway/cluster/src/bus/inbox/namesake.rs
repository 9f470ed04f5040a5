//! Another process with this node's name: a mistake, except where one takes the place of the other.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Until when another process with this node's name is no mistake.
#[derive(Default)]
pub struct ExpectedNamesake(Mutex<Option<Instant>>);

impl ExpectedNamesake {
    /// Expects one from now on, for so long.
    pub fn expect_for(&self, span: Duration) {
        *self.0.lock() = Instant::now().checked_add(span);
    }

    pub(in crate::bus) fn is_expected(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_expected_for_as_long_as_was_said() {
        let expected = ExpectedNamesake::default();
        assert!(!expected.is_expected());
        expected.expect_for(Duration::from_secs(60));
        assert!(expected.is_expected());
        expected.expect_for(Duration::ZERO);
        assert!(!expected.is_expected());
    }
}
