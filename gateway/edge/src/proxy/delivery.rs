//! The last steps of every answer, in this order: an error of ours is told in the client's dialect,
//! the rules of the route for answers are applied, and the answer is counted and logged.
//!
//! Nothing that is done here is ever stored: a stored answer goes through these steps each time.

use std::sync::Arc;
use std::time::Instant;

use http::Response;

use super::CountedResponse;
use super::metrics::RequestOutcome;
use super::record::PendingRecord;
use super::route::Route;
use super::rules::AnswerRules;
use crate::http::body::Body;
use crate::http::grpc::AnswerDialect;

/// The answer to a request that is under way: where it is logged, and which form it gets.
pub struct PendingAnswer {
    /// None: nobody reads the record of this request.
    pub record: Option<PendingRecord>,
    pub dialect: AnswerDialect,
    /// Who has sent the request, where its route asks for that.
    pub user: Option<Arc<str>>,
    /// What the rules of the route do to the answer. None: the route has no rules.
    pub rules: Option<Box<AnswerRules>>,
}

impl PendingAnswer {
    /// An answer that no rules of a route concern.
    pub fn new(record: Option<PendingRecord>, dialect: AnswerDialect) -> Self {
        Self {
            record,
            dialect,
            user: None,
            rules: None,
        }
    }

    /// Counts an answer of the route and gives it its final form.
    pub(super) fn finish(
        self,
        route: &Route,
        served: CountedResponse,
        started: Instant,
    ) -> Response<Body> {
        route.metrics.count(served.outcome, started.elapsed());
        self.give(served)
    }

    /// The response in its final form. If there is a record of the request, it is finished when the
    /// body ends.
    pub(super) fn give(self, mut served: CountedResponse) -> Response<Body> {
        if served.outcome == RequestOutcome::Error {
            served.response = self.dialect.error(served.response);
        }
        if let Some(rules) = self.rules {
            served = rules.apply(served);
        }
        match self.record {
            Some(record) => record.sent_by(self.user).answered(served),
            None => served.response,
        }
    }
}
