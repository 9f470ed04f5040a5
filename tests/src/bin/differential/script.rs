//! What the origins play: every sequence under a number, and what each origin was asked.
//!
//! A request names its sequence by its path and its step by a field that every cache
//! hands on, also in a request of its own; so the answer follows from the request alone,
//! and the three origins give the same one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use http::Method;

use crate::sequence::{AnswerDelivery, FieldValue, OriginAnswer, RequestSequence};

/// The field that names the step, in requests and in the answers to them.
pub const STEP: &str = "x-step";

/// All sequences of the run.
pub struct RunScript {
    pub start: SystemTime,
    sequences: RwLock<Vec<ScriptedSequence>>,
}

/// A sequence, and the step of it that is played.
struct ScriptedSequence {
    sequence: Arc<RequestSequence>,
    step: AtomicUsize,
}

/// One request as an origin saw it.
#[derive(Clone, Copy, Debug)]
pub struct OriginRequest {
    /// With If-None-Match or If-Modified-Since.
    pub conditional: bool,
    /// It got a 304.
    pub not_modified: bool,
}

/// A sequence and a step of it.
type StepPlace = (usize, usize);

/// What one origin was asked.
#[derive(Clone, Default)]
pub struct OriginRecord(Arc<Mutex<HashMap<StepPlace, Vec<OriginRequest>>>>);

impl RunScript {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: SystemTime::now(),
            sequences: RwLock::default(),
        })
    }

    /// Takes a sequence in; answers its number.
    pub fn add(&self, sequence: Arc<RequestSequence>) -> usize {
        let mut all = self
            .sequences
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(ScriptedSequence {
            sequence,
            step: AtomicUsize::new(0),
        });
        all.len() - 1
    }

    /// Notes which step of a sequence is played from now on.
    pub fn play_step(&self, number: usize, step: usize) {
        let all = self
            .sequences
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(scripted) = all.get(number) {
            scripted.step.store(step, SeqCst);
        }
    }

    /// A sequence, and the step of it that is played.
    fn get(&self, number: usize) -> Option<(Arc<RequestSequence>, usize)> {
        let all = self
            .sequences
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let scripted = all.get(number)?;
        Some((Arc::clone(&scripted.sequence), scripted.step.load(SeqCst)))
    }

    /// An origin that plays the script and notes what it is asked.
    pub async fn origin(self: &Arc<Self>) -> (Origin, OriginRecord) {
        let (script, record) = (Arc::clone(self), OriginRecord::default());
        let notes = record.clone();
        let origin = Origin::pages(move |seen| {
            script
                .play(seen, &notes)
                .unwrap_or_else(|| Reply::status_only(599))
        })
        .await;
        (origin, record)
    }

    fn play(&self, seen: &Seen, notes: &OriginRecord) -> Option<Reply> {
        let number = seen.path.split('/').nth(1)?.parse().ok()?;
        let (sequence, now) = self.get(number)?;
        // A refresh behind a reader has only those fields of the request that select the copy. The
        // others of its step are answered when it comes.
        let step = match seen.header(STEP) {
            "" => now,
            step => step.parse().ok()?,
        };
        let answer = &sequence.steps.get(step)?.answer;
        let not_modified = self.is_unmodified(seen, answer);
        notes.note(
            (number, step),
            OriginRequest {
                conditional: is_conditional(seen),
                not_modified,
            },
        );
        Some(self.reply(seen, step, answer, not_modified))
    }

    fn reply(&self, seen: &Seen, step: usize, answer: &OriginAnswer, not_modified: bool) -> Reply {
        let reply = match answer.way {
            AnswerDelivery::HangUp => return Reply::hang_up(),
            _ if not_modified => Reply::status_only(304),
            _ if answer.status == 204 => Reply::status_only(204),
            AnswerDelivery::Whole => Reply::ok(body(seen, answer)).status(answer.status),
            AnswerDelivery::Cut => {
                let (reply, pieces) = Reply::stream();
                let body = body(seen, answer);
                tokio::spawn(async move {
                    pieces.send(body).await;
                    pieces.cut();
                });
                reply.status(answer.status)
            }
        };
        let url = format!("/{}", seen.path.split('/').nth(1).unwrap_or_default());
        let reply = answer.fields.iter().fold(reply, |reply, field| {
            reply.header(field.name, &field.value.on_wire(self.start, &url))
        });
        reply
            .header(STEP, &step.to_string())
            .header("content-type", "text/plain")
    }

    /// RFC 9110 §13.2.2, for the validators that the stream has.
    fn is_unmodified(&self, seen: &Seen, answer: &OriginAnswer) -> bool {
        let reads = matches!(seen.method, Method::GET | Method::HEAD);
        if !reads || answer.status != 200 || answer.way != AnswerDelivery::Whole {
            return false;
        }
        let tags = seen.header("if-none-match");
        if !tags.is_empty() {
            let Some(FieldValue::Text(tag)) = answer.all("etag").next().map(|field| field.value)
            else {
                return tags == "*";
            };
            let opaque = tag.trim_start_matches("W/");
            return tags == "*" || tags.contains(opaque);
        }
        let since = httpdate::parse_http_date(seen.header("if-modified-since"));
        let modified = answer.all("last-modified").next();
        let modified = modified.map(|field| field.value.on_wire(self.start, ""));
        let modified = modified.and_then(|text| httpdate::parse_http_date(&text).ok());
        matches!((since, modified), (Ok(since), Some(modified)) if modified <= since)
    }
}

impl OriginRecord {
    fn note(&self, place: StepPlace, asked: OriginRequest) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(place).or_default().push(asked);
    }

    /// What was asked in this step of this sequence.
    pub fn of(&self, sequence: usize, step: usize) -> Vec<OriginRequest> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(sequence, step)).cloned().unwrap_or_default()
    }
}

fn is_conditional(seen: &Seen) -> bool {
    !seen.header("if-none-match").is_empty() || !seen.header("if-modified-since").is_empty()
}

/// Tells the URL, the version, and what `Vary` names.
fn body(seen: &Seen, answer: &OriginAnswer) -> String {
    let varies = |name| {
        answer.all("vary").any(|field| match field.value {
            FieldValue::Text(text) => text.eq_ignore_ascii_case(name),
            _ => false,
        })
    };
    let mut text = format!("{} version {}", seen.path, answer.version);
    for name in ["accept-language", "x-kind"] {
        if varies(name) {
            text.push_str(&format!(" {name} {}", seen.header(name)));
        }
    }
    format!("{text} and as many letters as a range needs to cut something out of")
}
