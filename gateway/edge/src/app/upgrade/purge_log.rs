//! The purge log of a second tier that only one process can have, on its way to the process that
//! takes the place of this one.
//!
//! Until the old process has closed the disk, the new one can't read what was purged, and could judge
//! nothing that it begins with. So the old one reads the log for it.

use std::io;

use lamina_base::descriptor_channel::{DescriptorChannel, MOST_BYTES};

use super::messages::{AT_ONCE, OldProcessMessage, PurgeLogPart, PurgeNote, hear, say};
use crate::cache::l2::store::{LogNumber, LoggedPurge, PurgeLogEntry, PurgeLogRange};

/// The room of a purge in a message besides its text.
const FORM: usize = 128;

/// The most bytes that JSON makes of one.
const ESCAPED: usize = 6;

/// Says the whole log, in as many messages as it needs.
pub(super) fn say_log(channel: &DescriptorChannel, log: &PurgeLogRange) -> io::Result<()> {
    let mut left = log.purges.as_slice();
    loop {
        let (part, rest) = left.split_at(fitting(left)?);
        let part = PurgeLogPart {
            generation: log.generation,
            newest: log.newest.value(),
            whole: log.whole,
            purges: part.iter().map(PurgeNote::of).collect(),
            more: !rest.is_empty(),
        };
        say(channel, &OldProcessMessage::PurgeLog(part), &[])?;
        if rest.is_empty() {
            return Ok(());
        }
        left = rest;
    }
}

/// Whether each purge of the log fits into a message.
pub(super) fn can_be_said(log: &PurgeLogRange) -> bool {
    log.purges
        .iter()
        .all(|logged| room(logged) <= MOST_BYTES / 2)
}

/// How many of these purges fit into a message.
fn fitting(purges: &[PurgeLogEntry]) -> io::Result<usize> {
    let mut bytes = 0;
    let fits = purges.iter().take_while(|logged| {
        bytes += room(logged);
        bytes <= MOST_BYTES / 2
    });
    match fits.count() {
        0 if !purges.is_empty() => Err(io::Error::other("a purge is too large for a message")),
        count => Ok(count),
    }
}

fn room(logged: &PurgeLogEntry) -> usize {
    FORM + ESCAPED * logged.purge.selector.len()
}

/// Hears the whole log.
pub(super) fn hear_log(channel: &DescriptorChannel) -> io::Result<PurgeLogRange> {
    let mut purges = Vec::new();
    loop {
        let OldProcessMessage::PurgeLog(part) = hear(channel, AT_ONCE)?.0 else {
            return Err(io::Error::other(
                "it said something else than its purge log",
            ));
        };
        purges.extend(part.purges.into_iter().map(PurgeNote::logged));
        if !part.more {
            return Ok(PurgeLogRange {
                generation: part.generation,
                newest: LogNumber::new(part.newest),
                whole: part.whole,
                purges,
                fault: None,
            });
        }
    }
}

impl PurgeNote {
    fn of(logged: &PurgeLogEntry) -> Self {
        Self {
            since: logged.since.value(),
            number: logged.number.value(),
            selector: logged.purge.selector.clone(),
            soft: logged.purge.soft,
        }
    }

    fn logged(self) -> PurgeLogEntry {
        PurgeLogEntry {
            since: LogNumber::new(self.since),
            number: LogNumber::new(self.number),
            purge: LoggedPurge {
                selector: self.selector,
                soft: self.soft,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn log_of(count: u64, length: usize) -> PurgeLogRange {
        let purges = (1..=count).map(|number| PurgeLogEntry {
            since: LogNumber::new(number),
            number: LogNumber::new(number),
            purge: LoggedPurge {
                selector: format!("tag:{number}{}", "\"".repeat(length)),
                soft: number % 2 == 0,
            },
        });
        PurgeLogRange {
            generation: u64::MAX,
            newest: LogNumber::new(count),
            whole: true,
            purges: purges.collect(),
            fault: None,
        }
    }

    #[test]
    fn a_log_of_any_length_arrives_as_it_is() {
        for (count, length) in [(0, 0), (1, 10), (5_000, 30), (40, 10_000)] {
            let log = log_of(count, length);
            assert!(can_be_said(&log));
            let (old, new) = UnixStream::pair().unwrap();
            let over = |stream| DescriptorChannel::over(stream).unwrap();
            let (old, new) = (over(old), over(new));
            let heard = std::thread::spawn(move || hear_log(&new).unwrap());
            say_log(&old, &log).unwrap();
            assert_eq!(heard.join().unwrap(), log);
        }
    }

    #[test]
    fn a_purge_that_fits_into_no_message_is_known_before() {
        assert!(!can_be_said(&log_of(1, MOST_BYTES)));
    }
}
