//! A line for people: time, level, message and fields, as `key=value`.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::{line::is_plain, line_time};

/// Writes an event, without a line break.
pub fn write(line: &mut String, time: SystemTime, event: &Event<'_>) -> fmt::Result {
    line_time::write(line, time);
    line.push_str(match *event.metadata().level() {
        Level::TRACE => " TRACE",
        Level::DEBUG => " DEBUG",
        Level::INFO => "  INFO",
        Level::WARN => "  WARN",
        Level::ERROR => " ERROR",
    });
    let mut fields = TextFieldWriter {
        line,
        result: Ok(()),
    };
    event.record(&mut fields);
    fields.result
}

/// Writes each field that it is shown.
struct TextFieldWriter<'a> {
    line: &'a mut String,
    /// Why a value could not be formatted. Nothing is written after it.
    result: fmt::Result,
}

const MESSAGE: &str = "message";

impl TextFieldWriter<'_> {
    /// Writes the name of a field. The message has none.
    fn name(&mut self, name: &str) {
        self.line.push(' ');
        if name != MESSAGE {
            self.line.push_str(name.strip_prefix("r#").unwrap_or(name));
            self.line.push('=');
        }
    }

    fn number(&mut self, field: &Field, number: impl itoa::Integer) {
        if self.result.is_ok() {
            self.name(field.name());
            self.line.push_str(itoa::Buffer::new().format(number));
        }
    }
}

impl Visit for TextFieldWriter<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if self.result.is_ok() {
            self.name(field.name());
            self.line.push_str(if value { "true" } else { "false" });
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => self.record_debug(field, &format_args!("{value}")),
            name if is_plain(value) && self.result.is_ok() => {
                self.name(name);
                self.line.push('"');
                self.line.push_str(value);
                self.line.push('"');
            }
            _ => self.record_debug(field, &value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        if self.result.is_err() {
            return;
        }
        self.name(field.name());
        let start = self.line.len();
        self.result = write!(self.line, "{value}");
        if value.source().is_some() && self.result.is_ok() {
            let causes = ErrorCauses(value);
            self.result = write!(self.line, " {}.sources={causes:?}", field.name());
        }
        show_controls(self.line, start);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() {
            return;
        }
        self.name(field.name());
        let start = self.line.len();
        self.result = write!(self.line, "{value:?}");
        if field.name() == MESSAGE {
            show_controls(self.line, start);
        }
    }
}

/// The errors that have led to an error, in words.
struct ErrorCauses<'a>(&'a (dyn Error + 'static));

impl fmt::Debug for ErrorCauses<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = formatter.debug_list();
        let mut next = self.0.source();
        while let Some(cause) = next {
            list.entry(&format_args!("{cause}"));
            next = cause.source();
        }
        list.finish()
    }
}

/// Shows the characters with which a text could command a terminal, from an octet of the line on,
/// by their numbers.
fn show_controls(line: &mut String, start: usize) {
    if line.as_bytes()[start..]
        .iter()
        .all(|octet| (b' '..0x7F).contains(octet))
    {
        return;
    }
    let text = line.split_off(start);
    for character in text.chars() {
        match character {
            '\x07' | '\x08' | '\x0C' | '\x1B' | '\x7F' => {
                // Writing to a string can't fail.
                let _ = write!(line, "\\x{:02x}", u32::from(character));
            }
            '\u{80}'..='\u{9F}' => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(character));
            }
            _ => line.push(character),
        }
    }
}
