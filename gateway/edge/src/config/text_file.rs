//! Reads a text file of the configuration, up to a bound.

use std::io::Read;
use std::path::Path;

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

pub(super) fn read_bounded(file: &Path, most: usize) -> std::io::Result<BoundedFile> {
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|f| f.take(most as u64 + 1).read_to_end(&mut bytes))?;
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
