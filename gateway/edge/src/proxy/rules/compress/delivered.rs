//! What is done to an answer when it is delivered.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;

use super::{ClientCodings, ClientWish, PassedAnswers, forget_octets, is_left_alone};
use crate::cache::encoder::EncodingOutcome;
use crate::cache::policy::UncacheableReason;
use crate::http::body::Body;
use crate::http::coding::transcode::{EncodedBody, plain_body};
use crate::http::coding::{AppliedCoding, ContentCoding};
use crate::proxy::counted::{AnsweringRule, CountedResponse};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::respond;
use crate::proxy::rules::present::{PresentFields, RuledField};

/// Whether other clients get an answer in another coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodingVariance {
    SameForAll,
    Varies,
}

/// What is done to an answer when the other rules were applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodingStep {
    /// It goes out as it is.
    Keep,
    /// Its coding was undone, so that nothing may say what was true of the coded octets.
    Undone,
    /// It gets a coding.
    Encode,
}

/// What is known of an answer before the other rules change its head: what the origin said of it
/// decides, as it does where a stored answer gets one of its forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodingPlan {
    step: CodingStep,
    variance: CodingVariance,
}

/// Whether an answer is still as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodingUndoing {
    NotNeeded,
    Done,
}

impl CodingPlan {
    /// The plan for answers of a route that does not compress.
    pub const NONE: Self = Self {
        step: CodingStep::Keep,
        variance: CodingVariance::SameForAll,
    };

    /// Whether other clients get it in another coding.
    pub fn variance(self) -> CodingVariance {
        self.variance
    }
}

impl ClientCodings {
    /// Undoes a coding that this client does not take. An answer that can't be decoded becomes an
    /// error of ours, which is told as any other.
    pub fn undo_for_client(&self, served: &mut CountedResponse) -> CodingUndoing {
        let response = &mut served.response;
        if is_of_no_coding(served.outcome, response) {
            return CodingUndoing::NotNeeded;
        }
        match AppliedCoding::of(response.headers()) {
            AppliedCoding::One(coding) if self.must_undo(coding, response.status()) => {
                match self.undo(coding, std::mem::take(response)) {
                    Ok(plain) => *response = plain,
                    Err(error) => *served = CountedResponse::new(*error, RequestOutcome::Error),
                }
                CodingUndoing::Done
            }
            _ => CodingUndoing::NotNeeded,
        }
    }

    /// What becomes of an answer whose head is still the origin's. `whole` is the head of the whole
    /// answer.
    pub fn plan(
        &self,
        served: &CountedResponse,
        undone: CodingUndoing,
        (whole, present): (&HeaderMap, PresentFields),
    ) -> CodingPlan {
        let response = &served.response;
        if is_of_no_coding(served.outcome, response) {
            return CodingPlan::NONE;
        }
        let applied = match present.has(RuledField::ContentEncoding) {
            true => AppliedCoding::of(response.headers()),
            false => AppliedCoding::Identity,
        };
        // Also where its coding is undone: that of others is not.
        let varies = undone == CodingUndoing::Done || self.rules.varies(whole, applied);
        let step = match (undone, applied) {
            (CodingUndoing::Done, _) => CodingStep::Undone,
            (_, AppliedCoding::Identity) if self.encodes(served) => CodingStep::Encode,
            _ => CodingStep::Keep,
        };
        CodingPlan {
            step,
            variance: match varies {
                true => CodingVariance::Varies,
                false => CodingVariance::SameForAll,
            },
        }
    }

    /// Carries the plan out. Most answers stay where they are.
    pub fn deliver(&self, served: &mut CountedResponse, plan: CodingPlan) {
        let response = &mut served.response;
        match plan.step {
            CodingStep::Keep => {}
            CodingStep::Undone => forget_octets(response.headers_mut()),
            CodingStep::Encode => *response = self.encode(std::mem::take(response)),
        }
    }

    fn must_undo(&self, coding: ContentCoding, status: StatusCode) -> bool {
        // Octets of a part can't be decoded. Ranges are asked for without a coding.
        !self.accepted.takes(coding) && has_content(status)
    }

    /// The answer without its coding.
    ///
    /// # Errors
    /// An error of ours if it can't be decoded.
    fn undo(
        &self,
        coding: ContentCoding,
        response: Response<Body>,
    ) -> Result<Response<Body>, Box<Response<Body>>> {
        self.rules
            .encoder
            .counts
            .count(coding, EncodingOutcome::Decoded);
        let (mut head, body) = response.into_parts();
        forget_octets(&mut head.headers);
        head.headers.remove("repr-digest");
        head.headers.remove(CONTENT_ENCODING);
        match plain_body(coding, body, self.rules.most) {
            Ok(plain) => Ok(Response::from_parts(head, plain)),
            Err(_) => Err(Box::new(undecodable(&head.headers))),
        }
    }

    /// Whether an answer without a coding is encoded while it passes by, on a route that wants it: one
    /// that is not stored, or a large one for the client whose request loads it.
    fn encodes(&self, served: &CountedResponse) -> bool {
        let (response, outcome) = (&served.response, served.outcome);
        let headers = response.headers();
        // The page for an error is the client's own, whatever it stands for.
        let is_stored = outcome != RequestOutcome::Pass
            && served.rule != Some(AnsweringRule::Errors)
            && response.extensions().get::<UncacheableReason>().is_none();
        let held = response.body().size_hint().exact();
        let length = match self.method {
            // Of what the origin answered there is no content, and of our own pages there is.
            Method::HEAD => held
                .filter(|length| *length > 0)
                .or_else(|| announced(headers)),
            _ => held,
        };
        let is_wanted = match (is_stored, self.rules.stream_min) {
            (false, _) => self.rules.passes == PassedAnswers::Encoded,
            (true, Some(least)) => {
                outcome == RequestOutcome::Miss && length.is_none_or(|length| length >= least)
            }
            (true, None) => false,
        };
        is_wanted
            && self.transforming == ClientWish::Allowed
            && !self.asks_for_range
            && has_content(response.status())
            && length.is_none_or(|length| length > 0 && length >= self.rules.min_bytes as u64)
            && self.rules.lists_type(headers)
            && !is_left_alone(headers)
            && self.passing_coding().is_some()
    }

    /// The best coding that can be made of a piece at a time.
    fn passing_coding(&self) -> Option<ContentCoding> {
        let offered = self.rules.offered.iter().copied();
        let made = offered.filter(|coding| EncodedBody::can(*coding));
        self.accepted.ranked(made).as_slice().first().copied()
    }

    fn encode(&self, response: Response<Body>) -> Response<Body> {
        let Some(coding) = self.passing_coding() else {
            return response;
        };
        let (mut head, body) = response.into_parts();
        let body = match self.method {
            Method::HEAD => Ok(Body::empty()),
            _ => EncodedBody::new(body, coding).map(Body::boxed),
        };
        match body {
            Err(as_it_was) => Response::from_parts(head, as_it_was),
            Ok(body) => {
                self.rules
                    .encoder
                    .counts
                    .count(coding, EncodingOutcome::Passed);
                forget_octets(&mut head.headers);
                head.headers.insert(CONTENT_ENCODING, coding.to_value());
                Response::from_parts(head, body)
            }
        }
    }
}

/// Whether codings are no matter of an answer: it is an error of ours, or an interim one.
fn is_of_no_coding(outcome: RequestOutcome, response: &Response<Body>) -> bool {
    outcome == RequestOutcome::Error || response.status().is_informational()
}

fn has_content(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::SWITCHING_PROTOCOLS
    )
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(http::header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn undecodable(said: &HeaderMap) -> Response<Body> {
    let text = "502 the origin's content can't be decoded\n";
    respond::unusable(said, "http_response_content_coding", text)
}
