//! Lines are exactly as those of `tracing-subscriber`, and JSON gives back what was logged.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::format::{DefaultFields, JsonFields};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

use super::*;

/// What was written.
#[derive(Clone, Default)]
struct WrittenOctets(Arc<Mutex<Vec<u8>>>);

impl WrittenOctets {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("lines are UTF-8")
    }
}

impl io::Write for WrittenOctets {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time of all lines of these tests.
fn fixed_clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_796_033_107_020_030)
}

const FIXED: &str = "2026-11-30T10:05:07.020030Z";

fn fixed_time(writer: &mut Writer<'_>) -> fmt::Result {
    writer.write_str(FIXED)
}

/// What our formatter and that of the library write of the same events.
struct BothWritten {
    ours: String,
    of_library: String,
}

fn as_text(log: impl FnOnce()) -> BothWritten {
    let format = LogLineFormat {
        clock: fixed_clock,
        ..LogLineFormat::text()
    };
    let timer: fn(&mut Writer<'_>) -> fmt::Result = fixed_time;
    let library = Format::default().with_target(false).with_timer(timer);
    let (ours, of_library) = (WrittenOctets::default(), WrittenOctets::default());
    let (to_ours, to_library) = (ours.clone(), of_library.clone());
    let lines = layer().event_format(format).with_ansi(false);
    let expected = layer().event_format(library).with_ansi(false);
    let subscriber = registry()
        .with(
            lines
                .fmt_fields(DefaultFields::new())
                .with_writer(move || to_ours.clone()),
        )
        .with(expected.with_writer(move || to_library.clone()));
    tracing::subscriber::with_default(subscriber, log);
    BothWritten {
        ours: ours.text(),
        of_library: of_library.text(),
    }
}

fn as_json(log: impl FnOnce()) -> BothWritten {
    let format = LogLineFormat {
        clock: fixed_clock,
        ..LogLineFormat::json()
    };
    let timer: fn(&mut Writer<'_>) -> fmt::Result = fixed_time;
    let library = Format::default()
        .json()
        .with_target(false)
        .with_timer(timer);
    let library = library.flatten_event(true).with_current_span(false);
    let (ours, of_library) = (WrittenOctets::default(), WrittenOctets::default());
    let (to_ours, to_library) = (ours.clone(), of_library.clone());
    let lines = layer()
        .with_ansi(false)
        .event_format(format)
        .fmt_fields(JsonFields::new());
    let expected = layer().event_format(library).fmt_fields(JsonFields::new());
    let subscriber = registry()
        .with(lines.with_writer(move || to_ours.clone()))
        .with(expected.with_writer(move || to_library.clone()));
    tracing::subscriber::with_default(subscriber, log);
    BothWritten {
        ours: ours.text(),
        of_library: of_library.text(),
    }
}

/// An error that has a cause.
#[derive(Debug)]
struct TwofoldError(&'static str, Option<Box<TwofoldError>>);

impl fmt::Display for TwofoldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Error for TwofoldError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as &dyn Error)
    }
}

/// Logs one event of each kind that the program has.
fn log_all_kinds() {
    let cause = TwofoldError("no \x1b[31mroute", None);
    let between = TwofoldError("not \"sent\"", Some(Box::new(cause)));
    let error = TwofoldError("fails\u{9b}", Some(Box::new(between)));
    tracing::info!(id = 7, peer = %"127.0.0.1:80", path = "/a?b=\"c\"\n", "request");
    tracing::warn!(
        octets = -3,
        whole = true,
        part = false,
        rate = 0.5,
        "é \x1b[31m\u{85} {}",
        1
    );
    tracing::error!(error = &error as &dyn Error, r#type = 1, "failed");
    tracing::error!(
        message = "not a \x07 template",
        none = None::<u64>,
        some = Some("x")
    );
    tracing::error!(kind = ?Some("x\ty"), rate = f64::NAN, large = u64::MAX, small = i64::MIN);
    tracing::error!(
        huge = u128::MAX,
        negative = i128::MIN,
        octets = &b"\x00\xff"[..],
        "large"
    );
    tracing::debug!(rate = 1e300, tiny = 1e-7, whole = 3.0, "numbers");
    tracing::trace!("a.b" = 1, "with \"quotes\"" = 2, "names");
    tracing::info!(target: "lamina::audit", name = "", char = ?'\'', "");
}

#[test]
fn a_line_for_people_is_time_level_message_and_fields() {
    let written = as_text(|| {
        tracing::info!(id = 7, peer = %"[::1]:80", path = "/a b", whole = true, none = None::<u64>, "request");
    });
    let fields = r#"request id=7 peer=[::1]:80 path="/a b" whole=true"#;
    assert_eq!(written.ours, format!("{FIXED}  INFO {fields}\n"));
}

#[test]
fn a_line_of_json_is_time_level_message_and_fields() {
    let written = as_json(|| {
        tracing::warn!(id = 7, peer = %"[::1]:80", path = "/\"\u{1}\\é", whole = true, rate = 0.5, "request");
    });
    let fields = r#""message":"request","id":7,"peer":"[::1]:80","path":"/\"\u0001\\é","whole":true,"rate":0.5"#;
    assert_eq!(
        written.ours,
        format!("{{\"timestamp\":\"{FIXED}\",\"level\":\"WARN\",{fields}}}\n")
    );
}

#[test]
fn lines_of_all_kinds_are_as_those_of_the_library() {
    let text = as_text(log_all_kinds);
    assert_eq!(text.ours, text.of_library);
    let json = as_json(log_all_kinds);
    assert_eq!(json.ours, json.of_library);
}

#[test]
fn lines_within_spans_name_them() {
    let in_a_span = || {
        let span = tracing::info_span!("outer", number = 3);
        let _inside = span.enter();
        tracing::info!(id = 7, "inside");
    };
    let written = as_json(in_a_span).ours;
    let line: Value = serde_json::from_str(&written).expect("the line is JSON");
    assert_eq!(line["spans"], json!([{"number": 3, "name": "outer"}]));
    assert_eq!(line["id"], 7);
    let written = as_text(in_a_span).ours;
    assert!(
        written.ends_with(" outer{number=3}: inside id=7\n"),
        "{written}"
    );
}

#[test]
fn a_terminal_gets_colours() {
    let written = WrittenOctets::default();
    let to_written = written.clone();
    let lines = layer().event_format(LogLineFormat::text()).with_ansi(true);
    let subscriber = registry().with(lines.with_writer(move || to_written.clone()));
    tracing::subscriber::with_default(subscriber, || tracing::info!(id = 7, "request"));
    let text = written.text();
    assert!(text.contains("\x1b[3mid\x1b[0m"), "{text:?}");
}

#[test]
fn a_value_that_logs_while_it_is_formatted_has_a_line_of_its_own() {
    struct Talkative;
    impl fmt::Display for Talkative {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            tracing::debug!("inner");
            formatter.write_str("told")
        }
    }
    let written = as_json(|| tracing::info!(value = %Talkative, "outer")).ours;
    for line in written.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    assert!(
        written.contains(r#""message":"outer","value":"told""#),
        "{written}"
    );
}

/// Texts with each of the characters that are escaped somewhere, and with others.
fn any_text() -> impl Strategy<Value = String> {
    let escaped = (0_u8..0xA0).prop_map(char::from);
    let characters = prop_oneof![escaped, any::<char>()];
    proptest::collection::vec(characters, 0..20).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn json_gives_back_what_was_logged(
        path in any_text(),
        shown in any_text(),
        said in any_text(),
        number: u64,
        signed: i64,
        whole: bool,
    ) {
        let written = as_json(|| {
            tracing::info!(
                path = path.as_str(),
                shown = display(&shown),
                as_debug = debug(&shown),
                number,
                signed,
                whole,
                "{said}"
            );
        });
        prop_assert_eq!(&written.ours, &written.of_library);
        prop_assert_eq!(written.ours.matches('\n').count(), 1);
        let line: Map<String, Value> = serde_json::from_str(&written.ours)?;
        let expected = json!({
            "timestamp": FIXED,
            "level": "INFO",
            "message": said,
            "path": path,
            "shown": shown,
            "as_debug": format!("{shown:?}"),
            "number": number,
            "signed": signed,
            "whole": whole,
        });
        prop_assert_eq!(Value::Object(line), expected);
    }

    #[test]
    fn text_is_as_that_of_the_library(
        path in any_text(),
        shown in any_text(),
        said in any_text(),
        number: i64,
    ) {
        let written = as_text(|| {
            tracing::info!(path = path.as_str(), shown = display(&shown), number, "{said}");
        });
        prop_assert_eq!(written.ours, written.of_library);
    }

    #[test]
    fn plain_are_printable_characters_but_quotation_marks_and_backslashes(
        text in r#"[ -~]{0,20}[\\"\x00-\x1F\x7F-\xFF]?[ -~]{0,20}"#,
    ) {
        let is_plain_octet = |octet: u8| matches!(octet, b' '..=b'~') && !b"\"\\".contains(&octet);
        prop_assert_eq!(is_plain(&text), text.bytes().all(is_plain_octet));
    }
}
