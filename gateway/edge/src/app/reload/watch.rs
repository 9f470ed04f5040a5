//! Looks whether the files of the configuration say something else.
//!
//! Their content is compared and not their stamps: what counts is what a path leads to now, also
//! through the links by which Kubernetes replaces a folder as a whole. What several files say is one
//! digest, which must be the same twice before it is acted upon, since several files never change at
//! one moment, and one that is being written is half of it for a while.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config;

/// The time between two looks.
pub const LOOK: Duration = Duration::from_secs(1);

/// The most bytes of a file that are compared: no file of a configuration may be as large.
const MOST_COMPARED: u64 = 16 << 20;

/// What the files said.
pub type ContentDigest = [u8; 32];

/// Decides when changed files are to be taken up.
pub struct ConfigFileWatch {
    /// What was last taken up, or found to be wrong. None: what is there is to be tried again.
    settled: Option<ContentDigest>,
    /// What the last look saw.
    seen: ContentDigest,
}

impl ConfigFileWatch {
    /// `content` is what is in use.
    pub fn new(content: ContentDigest) -> Self {
        Self {
            settled: Some(content),
            seen: content,
        }
    }

    /// Notes what the files say now. Returns whether it is to be taken up: it is something else, and
    /// the same as at the last look.
    pub fn look(&mut self, now: ContentDigest) -> bool {
        let is_settled = now == self.seen && Some(now) != self.settled;
        self.seen = now;
        if is_settled {
            self.settled = Some(now);
        }
        is_settled
    }

    /// Lets the next look find the same again: it could not be taken up at that moment.
    pub fn try_again(&mut self) {
        self.settled = None;
    }
}

/// A digest of what the file and all that it includes or names as secrets say.
pub fn digest(file: &Path) -> ContentDigest {
    let mut digest = Sha256::new();
    for file in config::files_of(file) {
        note(&mut digest, &file);
    }
    digest.finalize().into()
}

fn note(digest: &mut Sha256, file: &PathBuf) {
    digest.update(file.as_os_str().as_encoded_bytes());
    digest.update([0]);
    let read = match fs::metadata(file).is_ok_and(|about| about.file_type().is_file()) {
        true => config::read_at_most(file, MOST_COMPARED),
        // What a pipe says is for whoever takes the configuration up.
        false => Err(ErrorKind::NotFound.into()),
    };
    match read {
        Ok(content) => {
            digest.update((content.len() as u64).to_le_bytes());
            digest.update(content);
        }
        Err(error) => digest.update(error.kind().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_twice_and_not_in_use_is_taken_up_once() {
        let (used, half, whole) = ([0; 32], [1; 32], [2; 32]);
        let mut watch = ConfigFileWatch::new(used);
        let looks = [used, half, whole, whole, whole, used, whole, used, used];
        let taken: Vec<_> = looks.into_iter().map(|now| watch.look(now)).collect();
        assert_eq!(
            taken,
            [false, false, false, true, false, false, false, false, true]
        );
    }

    #[test]
    fn what_could_not_be_taken_up_is_tried_again() {
        let (used, new) = ([0; 32], [1; 32]);
        let mut watch = ConfigFileWatch::new(used);
        let taken = [new, new].map(|now| watch.look(now));
        assert_eq!(taken, [false, true]);
        watch.try_again();
        assert_eq!([new, new].map(|now| watch.look(now)), [true, false]);
    }
}
