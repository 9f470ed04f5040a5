//! One attack as the bytes that a client writes, and what must come of them.
//!
//! The tables are [`super::http1`] (heads) and [`super::http1_bodies`].

use std::net::SocketAddr;

use crate::raw::RawConnection;

/// A path that no request may ever reach: it stands where a bad parser would see a request.
pub const SMUGGLED: &str = "/smuggled";

/// An interim answer that says to go on.
const CONTINUE: u16 = 100;

/// What a client writes that it should not.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub expected: Expected,
}

/// What must come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// One answer with one of these statuses, then the end; the origin sees nothing.
    Refused(&'static [u16]),
    /// The same, or the end without a word. The origin may see the request begin, but never
    /// a body that ends.
    BrokenOff(&'static [u16]),
    /// These answers in this order; the connection may stay.
    Answered(&'static [u16]),
}

/// What the client got.
#[derive(Debug)]
pub struct Outcome {
    pub statuses: Vec<u16>,
    pub text: String,
}

impl Case {
    pub(super) fn new(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self {
            name,
            bytes: bytes.into(),
            expected,
        }
    }

    /// Writes it on a connection of its own, closes that for writing, and reads to the end.
    pub async fn run(&self, gateway: SocketAddr) -> Outcome {
        let mut raw = RawConnection::open(gateway).await;
        // Refused early, the rest may find nobody.
        let _ = raw.try_write(&self.bytes).await;
        raw.finish().await;
        let read = raw.to_end().await;
        let text = String::from_utf8_lossy(&read).into_owned();
        let statuses = text
            .match_indices("HTTP/1.1 ")
            .filter_map(|(at, words)| text[at + words.len()..].get(..3)?.parse().ok())
            .collect();
        Outcome { statuses, text }
    }

    /// Whether that is what must come of it, as far as the client sees; in words what is not.
    pub fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        // A client that has closed its side and waits is asked by a 100 whether it is still there.
        let statuses = outcome.statuses.iter().copied();
        let statuses: Vec<u16> = statuses.filter(|status| *status != CONTINUE).collect();
        let well = match self.expected {
            Expected::Refused(any) => {
                matches!(statuses[..], [status] if any.contains(&status))
            }
            Expected::BrokenOff(any) => match statuses[..] {
                [] => true,
                [status] => any.contains(&status),
                _ => false,
            },
            Expected::Answered(all) => statuses == all,
        };
        match well {
            true => Ok(()),
            false => Err(format!(
                "{}: wanted {:?}, got {:?}:\n{}",
                self.name, self.expected, outcome.statuses, outcome.text
            )),
        }
    }
}
