//! Whether files that could not be taken up say again what runs: then nothing is wrong any more,
//! though nobody has asked for a reload.

use parking_lot::Mutex;

use super::watch::ContentDigest;

/// Decides when files are worth a look.
#[derive(Default)]
pub struct RepairWatch(Mutex<TriedFiles>);

/// The files at the last attempt to take them up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum TriedFiles {
    /// They said what runs. If they were not taken up, they are not the cause.
    #[default]
    AsRuns,
    /// They said something else, or nothing that can be understood.
    Otherwise,
    /// So they were refused.
    Refused {
        /// What the last look saw. None: nobody has looked.
        seen: Option<ContentDigest>,
    },
}

impl RepairWatch {
    /// They are read to be taken up.
    pub fn tries(&self) {
        *self.0.lock() = TriedFiles::Otherwise;
    }

    /// They say what runs.
    pub fn say_what_runs(&self) {
        *self.0.lock() = TriedFiles::AsRuns;
    }

    /// They were not taken up.
    pub fn refused(&self) {
        let mut tried = self.0.lock();
        if *tried == TriedFiles::Otherwise {
            *tried = TriedFiles::Refused { seen: None };
        }
    }

    /// Whether the files were refused for what they said, and nothing was taken up since.
    pub fn is_waiting(&self) -> bool {
        matches!(*self.0.lock(), TriedFiles::Refused { .. })
    }

    /// Notes what the files say now. Returns whether they are worth to be read: they were refused,
    /// and say something else than at the last look.
    pub fn look(&self, now: ContentDigest) -> bool {
        match &mut *self.0.lock() {
            TriedFiles::Refused { seen } if *seen != Some(now) => {
                *seen = Some(now);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_files_are_read_once_for_each_content() {
        let repair = RepairWatch::default();
        let (used, wrong) = ([0; 32], [1; 32]);
        assert!(!repair.look(wrong), "nothing was refused");
        repair.tries();
        repair.refused();
        let looks = [wrong, wrong, used, used, wrong].map(|now| repair.look(now));
        assert_eq!(looks, [true, false, true, false, true]);
        repair.say_what_runs();
        assert!(!repair.is_waiting());
        assert!(!repair.look(used));
    }

    #[test]
    fn files_that_say_what_runs_are_not_the_cause_of_a_refusal() {
        let repair = RepairWatch::default();
        repair.tries();
        repair.say_what_runs();
        repair.refused();
        assert!(!repair.is_waiting());
    }
}
