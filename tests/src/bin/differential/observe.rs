//! What one server made of one step.

use std::fmt;

use e2e::client::{Answer, Failure};
use http::HeaderMap;

use crate::script::{OriginRequest, STEP};
use crate::sequence::{AnswerDelivery, SequenceStep};

/// Where an answer came from, as its own origin's notes and the answer itself tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// The origin was not asked.
    Store,
    /// The origin's answer to this step.
    Origin,
    /// The origin said 304.
    Validated,
    /// The origin was asked, the answer is an earlier one: an error is covered, or a refresh is behind.
    StaleCopy,
    /// The server's own words: it has nothing else.
    Own,
}

/// One answer, reduced to what must be the same.
#[derive(Clone, Debug)]
pub struct ObservedAnswer {
    pub source: Source,
    /// 0 when there was none.
    pub status: u16,
    pub body: Body,
    /// The step whose answer the fields are from.
    pub from: Option<usize>,
    pub age: bool,
    pub asked: Vec<OriginRequest>,
}

/// A body; bytes that differ by nature are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    Whole(String),
    Cut,
}

impl ObservedAnswer {
    pub fn new(
        number: usize,
        step: &SequenceStep,
        answer: Result<Answer, Failure>,
        asked: Vec<OriginRequest>,
    ) -> Self {
        let none = HeaderMap::new();
        let (status, headers, body) = match &answer {
            Ok(answer) => (answer.status.as_u16(), &answer.headers, text(answer)),
            Err(Failure::Cut { status, .. }) => (status.as_u16(), &none, Body::Cut),
            Err(Failure::NoAnswer(_)) => (0, &none, Body::Cut),
        };
        let from = headers
            .get(STEP)
            .and_then(|step| step.to_str().ok()?.parse().ok());
        Self {
            source: source(number, step, status, from, &asked),
            status,
            body,
            from,
            age: headers.contains_key("age"),
            asked,
        }
    }

    pub fn is_reused(&self) -> bool {
        self.source == Source::Store
    }
}

fn source(
    number: usize,
    step: &SequenceStep,
    status: u16,
    from: Option<usize>,
    asked: &[OriginRequest],
) -> Source {
    let Some(last) = asked.last() else {
        return Source::Store;
    };
    match from {
        _ if last.not_modified => Source::Validated,
        Some(earlier) if earlier < number => Source::StaleCopy,
        Some(_) => Source::Origin,
        None if step.answer.way != AnswerDelivery::Whole || status >= 500 => Source::Own,
        None => Source::Origin,
    }
}

fn text(answer: &Answer) -> Body {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    // A multipart's boundary is the server's choice.
    let boundary = answer.header("content-type").split_once("boundary=");
    Body::Whole(match boundary {
        Some((_, boundary)) => text.replace(boundary.trim_matches('"'), "boundary"),
        None => text,
    })
}

impl fmt::Display for ObservedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.status, self.source)?;
        if let Some(step) = self.from {
            write!(f, " fields-of-{}", step + 1)?;
        }
        match &self.body {
            Body::Cut => write!(f, " body cut")?,
            Body::Whole(text) => write!(f, " {} bytes", text.len())?,
        }
        if self.age {
            write!(f, " Age")?;
        }
        for asked in &self.asked {
            let kind = if asked.conditional {
                "if-changed"
            } else {
                "whole"
            };
            let said = if asked.not_modified { "→304" } else { "" };
            write!(f, " asked({kind}{said})")?;
        }
        Ok(())
    }
}
