//! A line for programs: an object of JSON with time, level, message and fields.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::{line::is_plain, line_time};

/// Writes an event, without a line break.
pub fn write(line: &mut String, time: SystemTime, event: &Event<'_>) -> fmt::Result {
    line.push_str(r#"{"timestamp":""#);
    line_time::write(line, time);
    line.push_str(r#"","level":""#);
    line.push_str(event.metadata().level().as_str());
    line.push('"');
    let mut fields = JsonFieldWriter {
        line,
        names: names_of(event.metadata()),
        result: Ok(()),
    };
    event.record(&mut fields);
    fields.line.push('}');
    fields.result
}

/// Writes each field that it is shown.
struct JsonFieldWriter<'a> {
    line: &'a mut String,
    names: FieldNames,
    /// Why a value could not be formatted. The line is not written then.
    result: fmt::Result,
}

/// How the names of an event's fields are written.
#[derive(Clone, Copy)]
enum FieldNames {
    Plain,
    NeedEscapes,
}

/// Looks at the names of an event's fields, unless it is of the same kind as the last one: most
/// lines are of one kind.
fn names_of(kind: &'static Metadata<'static>) -> FieldNames {
    thread_local! {
        /// The last kind of this thread that has plain names.
        static LAST: Cell<Option<&'static Metadata<'static>>> = const { Cell::new(None) };
    }
    if LAST.get().is_some_and(|last| std::ptr::eq(last, kind)) {
        return FieldNames::Plain;
    }
    if !kind.fields().iter().all(|field| is_plain(field.name())) {
        return FieldNames::NeedEscapes;
    }
    LAST.set(Some(kind));
    FieldNames::Plain
}

impl JsonFieldWriter<'_> {
    fn name(&mut self, field: &Field) {
        self.line.push_str(",\"");
        match self.names {
            FieldNames::Plain => self.line.push_str(field.name()),
            FieldNames::NeedEscapes => push_escaped(self.line, field.name()),
        }
        self.line.push_str("\":");
    }

    fn number(&mut self, field: &Field, number: impl itoa::Integer) {
        self.name(field);
        self.line.push_str(itoa::Buffer::new().format(number));
    }
}

impl Visit for JsonFieldWriter<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        match serde_json::Number::from_f64(value) {
            Some(number) => self.result = self.result.and(write!(self.line, "{number}")),
            // JSON has no word for what is no number.
            None => self.line.push_str("null"),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field);
        self.line.push_str(if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.line.push('"');
        push_escaped(self.line, value);
        self.line.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        self.line.push('"');
        let start = self.line.len();
        self.result = self.result.and(write!(self.line, "{value:?}"));
        if !is_plain(&self.line[start..]) {
            let text = self.line.split_off(start);
            push_escaped(self.line, &text);
        }
        self.line.push('"');
    }
}

/// Appends a text as the inside of a string of JSON.
fn push_escaped(line: &mut String, text: &str) {
    if is_plain(text) {
        return line.push_str(text);
    }
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\x08' => line.push_str("\\b"),
            '\x0C' => line.push_str("\\f"),
            '\0'..'\x20' => {
                // Writing to a string can't fail.
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            _ => line.push(character),
        }
    }
}
