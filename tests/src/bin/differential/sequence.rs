//! What is asked and what the origin would say: a few requests about one URL.
//!
//! Decision: a sequence is plain data in which everything can be left out one by one,
//! since that is how [`shrink`](crate::shrink) finds the smallest one that still shows a
//! difference. Dates are seconds from the run's start, so that a sequence can be replayed.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::Method;

/// Requests about one URL, one after the other.
#[derive(Clone, Debug)]
pub struct RequestSequence {
    pub steps: Vec<SequenceStep>,
}

/// One request, and the origin's answer if it is asked.
#[derive(Clone, Debug)]
pub struct SequenceStep {
    /// Before it, lifetimes of [`SHORT`] end.
    pub pause: bool,
    pub ask: SequenceRequest,
    pub answer: OriginAnswer,
}

/// A short lifetime as the stream uses it, in seconds.
pub const SHORT: u64 = 2;

/// A request.
#[derive(Clone, Debug)]
pub struct SequenceRequest {
    pub method: Method,
    /// Below the sequence's own URL.
    pub path: &'static str,
    pub fields: Vec<FieldLine>,
}

/// An origin's answer.
#[derive(Clone, Debug)]
pub struct OriginAnswer {
    pub way: AnswerDelivery,
    pub status: u16,
    pub fields: Vec<FieldLine>,
    /// Which text the body is.
    pub version: u8,
}

/// How an answer goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerDelivery {
    Whole,
    /// The connection closes without an answer.
    HangUp,
    /// The connection closes in the middle of the body.
    Cut,
}

/// A field line.
#[derive(Clone, Copy, Debug)]
pub struct FieldLine {
    pub name: &'static str,
    pub value: FieldValue,
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub enum FieldValue {
    Text(&'static str),
    /// Seconds from the run's start.
    Date(i64),
    /// The sequence's URL with this behind it.
    Url(&'static str),
}

pub const fn text(name: &'static str, value: &'static str) -> FieldLine {
    FieldLine {
        name,
        value: FieldValue::Text(value),
    }
}

pub const fn date(name: &'static str, seconds: i64) -> FieldLine {
    FieldLine {
        name,
        value: FieldValue::Date(seconds),
    }
}

pub const fn url(name: &'static str, below: &'static str) -> FieldLine {
    FieldLine {
        name,
        value: FieldValue::Url(below),
    }
}

impl RequestSequence {
    /// Whether an answer may be used stale while a request of the server's own goes on.
    pub fn refreshes_behind(&self) -> bool {
        let says = |step: &SequenceStep| step.answer.says("stale-while-revalidate");
        self.steps.iter().any(says)
    }

    /// The number of the first step behind the pause.
    pub fn half(&self) -> usize {
        let pause = self.steps.iter().position(|step| step.pause);
        pause.unwrap_or(self.steps.len())
    }
}

impl SequenceRequest {
    pub fn get(&self, name: &str) -> Option<&FieldLine> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl OriginAnswer {
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FieldLine> {
        self.fields.iter().filter(move |field| field.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether a field has this text in it.
    pub fn mentions(&self, name: &str, part: &str) -> bool {
        self.all(name)
            .any(|field| matches!(field.value, FieldValue::Text(text) if text.contains(part)))
    }

    /// Whether `Cache-Control` has this text in it.
    pub fn says(&self, part: &str) -> bool {
        self.mentions("cache-control", part)
    }
}

impl FieldValue {
    /// What goes over the wire.
    pub fn on_wire(self, start: SystemTime, url: &str) -> String {
        match self {
            Self::Text(text) => text.to_owned(),
            Self::Url(below) => format!("{url}{below}"),
            Self::Date(seconds) => {
                let span = Duration::from_secs(seconds.unsigned_abs());
                let at = match seconds {
                    0.. => start + span,
                    _ => start - span,
                };
                httpdate::fmt_http_date(at)
            }
        }
    }
}

impl fmt::Display for SequenceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pause, ask, answer } = self;
        if *pause {
            write!(f, "(after {SHORT} s and more) ")?;
        }
        write!(f, "{} URL{}", ask.method, ask.path)?;
        for field in &ask.fields {
            write!(f, " [{field}]")?;
        }
        match answer.way {
            AnswerDelivery::Whole => write!(f, " · origin: {}", answer.status)?,
            AnswerDelivery::HangUp => return write!(f, " · origin: hangs up"),
            AnswerDelivery::Cut => write!(f, " · origin, body cut: {}", answer.status)?,
        }
        for field in &answer.fields {
            write!(f, " [{field}]")?;
        }
        write!(f, " body {}", answer.version)
    }
}

impl fmt::Display for FieldLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            FieldValue::Text(text) => write!(f, "{}: {text}", self.name),
            FieldValue::Date(seconds) => write!(f, "{}: start{seconds:+} s", self.name),
            FieldValue::Url(below) => write!(f, "{}: URL{below}", self.name),
        }
    }
}
