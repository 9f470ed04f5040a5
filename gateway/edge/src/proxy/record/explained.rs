//! A record in words for people: what happened and why, in one sentence for each event.

use std::time::Duration;

use serde_json::{Value, json};

use super::trail::{SecondTierAnswer, TimedTrailEvent, TrailEvent};
use super::{CLIENT_LEFT, RequestRecord};
use crate::cache::event::{StaleReason, UncoalescedReason};
use crate::http::cache_status::ForwardReason;
use crate::proxy::counted::AnsweringRule;
use crate::rate_limit::LimitVerdict;

impl RequestRecord {
    /// The record as `GET /v1/requests/recent` shows it.
    pub fn explained(&self) -> Value {
        let (noted, dropped) = match &self.trail {
            Some(trail) => trail.noted(),
            None => Default::default(),
        };
        let mut steps: Vec<Value> = noted.iter().map(step).collect();
        if dropped > 0 {
            steps.push(json!({"what": format!("{dropped} more steps were not kept")}));
        }
        let head = self.answer.as_ref();
        json!({
            "id": self.id,
            "request_id": self.request_id,
            "began_ms_ago": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "client": self.client,
            "peer": self.peer,
            "protocol": self.protocol(),
            "tls": self.tls.as_ref().map(|tls| json!({
                "version": tls.version,
                "cipher": tls.cipher,
                "server_name": tls.server_name,
                "resumed": tls.resumed,
                "ja4": tls.ja4,
                "client_certificate": tls.client_certificate.is_some(),
            })),
            "method": self.method,
            "url": format!("{}://{}{}", self.scheme, self.host, self.path),
            "agent": self.agent,
            "route": self.route.as_deref(),
            "user": self.user,
            "status": self.status(),
            "result": self.result(),
            "rule": self.rule().map(AnsweringRule::as_str),
            "cache_status": head.and_then(|head| head.cache_status.as_deref()),
            "encoding": head.and_then(|head| head.encoding.as_deref()),
            "grpc_status": self.grpc_status,
            "bytes": self.bytes,
            "complete": self.complete,
            "head_us": head.map(|head| micros(head.after)),
            "total_us": micros(self.total),
            "key": noted.iter().find_map(|noted| match noted.waypoint {
                TrailEvent::Keyed(key) => Some(key.to_string()),
                _ => None,
            }),
            "steps": steps,
            "end": self.end(),
        })
    }

    /// How the request ended, in one sentence.
    fn end(&self) -> String {
        let status = self.status();
        if status == CLIENT_LEFT && self.answer.is_none() {
            return "The client left before there was an answer.".to_owned();
        }
        let mut end = match self.rule() {
            None | Some(AnsweringRule::Errors) => self.end_without_a_rule(),
            Some(rule) => format!("It was answered {status} {}.", made_by(rule)),
        };
        if self.rule() == Some(AnsweringRule::Errors) {
            end.push_str(" The rule `errors` of its route told the client of it.");
        }
        if !self.complete {
            end.push_str(" The client did not take the whole body.");
        }
        end
    }

    /// How it ended if no rule of its route has answered.
    fn end_without_a_rule(&self) -> String {
        let status = self.status();
        match (self.result(), &self.refused, &self.route) {
            (_, Some(why), _) => format!("It was refused with {status}: {why}."),
            (_, None, None) if status == 404 => "No route matches it: 404.".to_owned(),
            ("hit", ..) => format!("It was answered {status} from the cache."),
            ("stale", ..) => format!("It was answered {status} with a stale copy."),
            ("revalidated", ..) => {
                format!(
                    "It was answered {status} with the stored copy, which the origin confirmed."
                )
            }
            ("coalesced", ..) => format!("It was answered {status} by another request's load."),
            ("miss", ..) => format!("It was answered {status} by its own load."),
            ("pass", ..) => format!("It was answered {status} without the cache."),
            _ => format!("It was answered {status} with an error of the gateway's own."),
        }
    }
}

/// Which rule of the route has answered, and why.
fn made_by(rule: AnsweringRule) -> String {
    let why = match rule {
        AnsweringRule::Access => "its client's address may not ask",
        AnsweringRule::Maintenance => "the route is closed",
        AnsweringRule::Redirect => "the page is at another place",
        AnsweringRule::TrailingSlash => "the page has another spelling",
        AnsweringRule::Respond => "the route has an answer of its own",
        AnsweringRule::Limit => "its client has asked too often",
        AnsweringRule::Cors => "a browser asked what it may send",
        AnsweringRule::Auth => "its sender was not let in",
        AnsweringRule::Errors => "it is an error",
    };
    let rule = rule.as_str();
    format!("by the rule `{rule}` of its route, since {why}")
}

fn step(noted: &TimedTrailEvent) -> Value {
    json!({"after_us": micros(noted.after), "what": sentence(&noted.waypoint)})
}

fn sentence(waypoint: &TrailEvent) -> String {
    match waypoint {
        TrailEvent::PluginCall(call) => {
            let (hook, plugin, took) = (call.hook, &call.plugin, micros(call.took));
            match &call.error {
                None => format!("The {hook} plugin {plugin} was called and took {took} µs."),
                Some(error) => {
                    format!("The {hook} plugin {plugin} failed after {took} µs: {error}")
                }
            }
        }
        TrailEvent::Keyed(key) => format!("Its key is {key}."),
        TrailEvent::Passes(reason, detail) => passes(*reason, *detail),
        TrailEvent::NotInL1(reason) => not_in_l1(*reason).to_owned(),
        TrailEvent::SecondTier(answer) => match answer {
            SecondTierAnswer::Fresh => "The second tier had a fresh copy.",
            SecondTierAnswer::Stale => "The second tier had a stale copy.",
            SecondTierAnswer::Nothing => "The second tier had nothing that may be served.",
            SecondTierAnswer::Unknown => {
                "The second tier did not answer in time or could not be asked."
            }
        }
        .to_owned(),
        TrailEvent::Leads => "It leads the load; others may follow it.".to_owned(),
        // A load beside others and one without a record have no number.
        TrailEvent::Follows(0) => "It waits for the load of another request.".to_owned(),
        TrailEvent::Follows(leader) => format!("It waits for the load of request {leader}."),
        TrailEvent::SideBySide(why) => format!(
            "It loads by itself, in parallel with other requests: {}.",
            alone(*why)
        ),
        TrailEvent::WaitedForNode => {
            "Another node was loading the same key; the request waited for that load.".to_owned()
        }
        TrailEvent::Attempt(attempt) => {
            let place = format!("Upstream {}, target {}", attempt.upstream, attempt.target);
            let took = micros(attempt.took);
            format!("{place}: {} ({took} µs).", attempt.outcome)
        }
        TrailEvent::Failed(error, detail) => format!("The load failed ({error}): {detail}."),
        TrailEvent::NotStored(refusal) => format!("The answer is not stored: {refusal}."),
        TrailEvent::Stored(lifetime) => {
            format!(
                "The answer is stored; its lifetime is {} s.",
                lifetime.as_secs()
            )
        }
        TrailEvent::Stale(reason) => format!("A stale copy was served: {}.", stale(*reason)),
        TrailEvent::Limited(name, LimitVerdict::Refused(wait)) => {
            let wait = wait.as_millis();
            format!("The rate limit {name} refused it; the next request is admitted in {wait} ms.")
        }
        TrailEvent::Limited(name, _) => {
            format!("It is above the rate limit {name}, which only counts (dry_run).")
        }
    }
}

fn passes(reason: ForwardReason, detail: Option<&str>) -> String {
    let why = match reason {
        ForwardReason::Method => "its method is not GET or HEAD",
        ForwardReason::Bypass => "its route or its form excludes it from the cache",
        _ => reason.as_str(),
    };
    match detail {
        Some(detail) => format!("It bypasses the cache: {why} ({detail})."),
        None => format!("It bypasses the cache: {why}."),
    }
}

fn not_in_l1(reason: ForwardReason) -> &'static str {
    match reason {
        ForwardReason::UriMiss => "The first tier has nothing under this key.",
        ForwardReason::VaryMiss => "The first tier has other variants only (Vary).",
        ForwardReason::Stale => {
            "The first tier has a stale copy that is to be validated or refreshed."
        }
        ForwardReason::Request => {
            "The first tier has a fresh copy that the request's Cache-Control does not accept."
        }
        ForwardReason::Partial => "The first tier has only a part of what is requested.",
        _ => "The first tier could not answer it.",
    }
}

fn alone(why: UncoalescedReason) -> &'static str {
    match why {
        UncoalescedReason::HitForMiss => {
            "a recent answer under this key could not be shared (hit_for_miss)"
        }
        UncoalescedReason::Private => "the answer to the leading request is for its client only",
        UncoalescedReason::OtherVariant => "the load is of another variant",
        UncoalescedReason::WaitTimeout => {
            "the load of another request took longer than cache.inflight.wait_timeout"
        }
        UncoalescedReason::Unsettled => {
            "the loads that it waited for failed, or were of other variants, too often"
        }
        UncoalescedReason::Range => "it asks for a range of an answer that is for its client only",
    }
}

fn stale(reason: StaleReason) -> &'static str {
    match reason {
        StaleReason::Revalidating => "it is inside stale_while_revalidate, and is refreshed",
        StaleReason::LoaderError => "the load failed, and the copy is inside stale_if_error",
        StaleReason::SoftTimeout => "the load took longer than the soft timeout",
        StaleReason::Backoff => "the key's load failed a moment ago, and is not tried again yet",
        StaleReason::Maintenance => "its route is under maintenance",
        StaleReason::Tolerated => "the client accepts it (max-stale)",
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
