//! The last steps of every answer, in this order: an error of ours is told in the client's dialect,
//! a page is put together from its fragments, the rules of the route for answers are applied, and
//! the answer is counted and logged.
//!
//! Nothing that is done here is ever stored: a stored answer goes through these steps each time.

use std::sync::Arc;
use std::time::Instant;

use http::Response;

use super::counted::{AnsweringRule, CountedResponse};
use super::debug_headers;
use super::esi::PageRequest;
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
    /// What puts together the page that the answer may be. None: the route does not do that.
    pub page: Option<Box<PageRequest>>,
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
            page: None,
            user: None,
            rules: None,
        }
    }

    /// Whether its record is one of the few that are kept of hits.
    pub fn is_of_a_sample(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(PendingRecord::is_of_a_sample)
    }

    /// Counts an answer of the route and gives it its final form.
    pub(super) fn finish(
        self,
        route: &Route,
        mut served: CountedResponse,
        started: Instant,
    ) -> Response<Body> {
        route.metrics.count(served.outcome, started.elapsed());
        debug_headers::set(&route.policy.debug_headers, &mut served);
        self.complete(served, |rule| route.metrics.answered_by(rule))
    }

    /// The response in its final form. If there is a record of the request, it is finished when the
    /// body ends.
    pub(super) fn give(self, served: CountedResponse) -> Response<Body> {
        self.complete(served, |_| {})
    }

    /// `count` counts the rule that has made the answer, if one has.
    fn complete(
        self,
        mut served: CountedResponse,
        count: impl FnOnce(AnsweringRule),
    ) -> Response<Body> {
        if served.outcome == RequestOutcome::Error {
            served.response = self.dialect.error(served.response);
        }
        if let Some(page) = self.page {
            served = page.assemble(served);
        }
        if let Some(rules) = self.rules {
            served = rules.apply(served);
        }
        if let Some(rule) = served.rule {
            count(rule);
        }
        match self.record {
            Some(record) => record.sent_by(self.user).answered(served),
            None => served.response,
        }
    }
}
