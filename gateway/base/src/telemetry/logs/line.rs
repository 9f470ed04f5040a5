//! Formats the lines of the log, at a quarter of what `tracing-subscriber` needs for them.
//!
//! The access log is a line for each request, so a line must cost little beside a hit. Its parts
//! go straight into a buffer that is used again. What is written is the same, octet by octet: what
//! is rare (lines within spans, which only libraries have, and colours on a terminal) is left to
//! `tracing-subscriber`.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{json_line, text_line};

/// Formats events as lines of one form.
pub struct LogLineFormat<F> {
    clock: fn() -> SystemTime,
    /// Writes an event without spans and colours, and no line break.
    write: fn(&mut String, SystemTime, &Event<'_>) -> fmt::Result,
    /// Formats all other events.
    library: Format<F>,
}

impl LogLineFormat<Full> {
    /// Lines for people.
    pub fn text() -> Self {
        Self {
            clock: SystemTime::now,
            write: text_line::write,
            library: Format::default().with_target(false),
        }
    }
}

impl LogLineFormat<Json> {
    /// Each line is an object of JSON.
    pub fn json() -> Self {
        let library = Format::default().json().with_target(false);
        Self {
            clock: SystemTime::now,
            write: json_line::write,
            library: library.flatten_event(true).with_current_span(false),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for LogLineFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<F>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        thread_local! {
            static LINE: Cell<String> = const { Cell::new(String::new()) };
        }
        let is_in_a_span = event.parent().is_some() || context.lookup_current().is_some();
        if is_in_a_span || writer.has_ansi_escapes() {
            return self.library.format_event(context, writer, event);
        }
        // A value that logs while it is formatted finds another buffer.
        let mut line = LINE.take();
        line.clear();
        let written = (self.write)(&mut line, (self.clock)(), event);
        line.push('\n');
        let written = written.and_then(|()| writer.write_str(&line));
        LINE.set(line);
        written
    }
}

/// Whether a text is shown as it is in both forms: it has nothing but printable characters of
/// ASCII, without quotation marks and backslashes.
pub(super) fn is_plain(text: &str) -> bool {
    let octets = text.as_bytes();
    // The last octets may be looked at twice.
    match (
        octets.last_chunk(),
        octets.first_chunk(),
        octets.last_chunk(),
    ) {
        (Some(last), ..) => {
            let (words, _) = octets.as_chunks();
            words.iter().chain([last]).all(|word| are_plain(*word))
        }
        (None, Some(&[a, b, c, d]), Some(&[e, f, g, h])) => are_plain([a, b, c, d, e, f, g, h]),
        _ => octets.iter().all(|octet| are_plain([*octet; 8])),
    }
}

/// Whether eight octets are plain, all at once.
fn are_plain(octets: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let word = u64::from_ne_bytes(octets);
    // Where an octet is 0, a bit is borrowed from its highest one. A false alarm needs a true one
    // below it.
    let has = |octet: u8| {
        let differs = word ^ (ONES * u64::from(octet));
        differs.wrapping_sub(ONES) & !differs
    };
    let is_control = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    (word | is_control | has(b'"') | has(b'\\') | has(0x7F)) & HIGH == 0
}

#[cfg(test)]
mod tests;
