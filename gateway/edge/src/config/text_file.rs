//! Reads a text file of the configuration, up to a bound.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::MAX_BYTES;
use super::problem::{ConfigFinding, ConfigProblems};
use super::sources::{self, ConfigSources};
use super::tree::YamlPosition;

/// The name and the text of a file, which is not larger than a configuration may be.
pub(super) fn read_text(file: &Path) -> Result<(String, String), ConfigProblems> {
    let name = file.display().to_string();
    let one = |finding: ConfigFinding, text: &str| {
        ConfigProblems::one(finding.locate(&ConfigSources::new(&name, text), None))
    };
    match read_bounded(file, MAX_BYTES) {
        Ok(BoundedFile::Text(text)) => Ok((name, text)),
        Ok(BoundedFile::TooLarge) => Err(one(ConfigFinding::file(TOO_LARGE), "")),
        Ok(BoundedFile::NotUtf8 { lossy, at }) => Err(one(ConfigFinding::at(at, NOT_UTF8), &lossy)),
        Err(error) => {
            let finding = ConfigFinding::file(format!("cannot be read: {error}"));
            Err(one(finding, ""))
        }
    }
}

/// How long whoever holds a pipe open may write nothing more.
const PIPE_SILENCE: Duration = Duration::from_secs(15);

/// How long all of it may take.
const PIPE_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is seen whether more has come.
const PIPE_LOOK: Duration = Duration::from_millis(10);

/// The content of a file, of a larger one a byte more than `most`. Whoever reads a configuration holds
/// up those who come later, so a pipe in which nobody writes is no reason to wait: it is empty.
///
/// # Errors
/// If it can't be read.
pub fn read_at_most(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::empty())?;
    let mut opened = File::from(opened).take(most + 1);
    let (mut bytes, mut patience) = (Vec::new(), PipePatience::begin(Instant::now()));
    loop {
        match opened.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            ended => return ended.map(|_| bytes),
        }
        if let Some(why) = patience.ends(bytes.len(), Instant::now()) {
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        thread::sleep(PIPE_LOOK);
    }
}

/// How long a pipe is waited for: as long as something comes, within bounds.
struct PipePatience {
    begun: Instant,
    /// How many bytes had come, and when the last of them did.
    came: (usize, Instant),
}

impl PipePatience {
    fn begin(now: Instant) -> Self {
        Self {
            begun: now,
            came: (0, now),
        }
    }

    /// Why it is not waited for any longer, after so many bytes.
    fn ends(&mut self, bytes: usize, now: Instant) -> Option<&'static str> {
        if bytes > self.came.0 {
            self.came = (bytes, now);
        }
        if now - self.came.1 >= PIPE_SILENCE {
            return Some("it is a pipe that somebody holds open and does not write to");
        }
        let is_over = now - self.begun >= PIPE_PATIENCE;
        is_over.then_some("it is a pipe whose writer takes longer than a minute")
    }
}

/// Whether a path leads to a pipe: whoever opens one waits for somebody who writes.
pub(super) fn is_pipe(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|about| about.file_type().is_fifo())
}

/// What a file with a bounded number of bytes holds.
pub(super) enum BoundedFile {
    Text(String),
    TooLarge,
    /// The text with replacement characters, and where the first of them stands.
    NotUtf8 {
        lossy: String,
        at: YamlPosition,
    },
}

pub(super) fn read_bounded(file: &Path, most: usize) -> io::Result<BoundedFile> {
    let bytes = read_at_most(file, most as u64)?;
    if bytes.len() > most {
        return Ok(BoundedFile::TooLarge);
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => BoundedFile::Text(without_mark(&text).to_owned()),
        Err(error) => {
            let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let at = place_of_byte(&lossy, error.utf8_error().valid_up_to());
            BoundedFile::NotUtf8 { lossy, at }
        }
    })
}

/// The text without the byte order mark that some editors put before it.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

pub(super) const TOO_LARGE: &str = "larger than 1 MiB; expected a configuration file";

pub(super) const NOT_UTF8: &str = "not UTF-8; expected a text file in UTF-8";

/// The position of a byte in a text whose bytes before it were valid.
pub(super) fn place_of_byte(text: &str, byte: usize) -> YamlPosition {
    let before = text.get(..byte).unwrap_or_default();
    let last = before.rsplit('\n').next().unwrap_or_default();
    YamlPosition {
        source: sources::MAIN,
        line: before.matches('\n').count() + 1,
        column: last.chars().count() + 1,
        width: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_waited_for_as_long_as_something_comes_and_a_minute_at_most() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut patience = PipePatience::begin(begun);
        for (bytes, seconds) in [
            (0, 14),
            (1, 14),
            (1, 28),
            (2, 28),
            (3, 42),
            (4, 56),
            (5, 59),
        ] {
            assert_eq!(patience.ends(bytes, at(seconds)), None, "{seconds}");
        }
        let why = patience.ends(6, at(60)).unwrap();
        assert!(why.contains("longer than a minute"), "{why}");
        let mut silent = PipePatience::begin(begun);
        assert_eq!(silent.ends(1, at(1)), None);
        let why = silent.ends(1, at(16)).unwrap();
        assert!(why.contains("does not write"), "{why}");
    }
}
