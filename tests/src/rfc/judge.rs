//! Compares what the client got, and what the origin saw, with what the table expects.

use http::{HeaderMap, Method, StatusCode};

use crate::check::{self, Context};
use crate::rfc::case::{Expect, Fields, From, Seen, Step};
use crate::rfc::clock::Clock;
use crate::rfc::exchange::Got;
use crate::rfc::origin::{Asked, Scene};
use crate::rfc::wire::joined;

/// What a case's origin has said so far.
#[derive(Default)]
pub struct Story {
    /// Status and body of each answer that could have been stored.
    said: Vec<(u16, String)>,
}

impl Story {
    /// # Errors
    /// The first thing that is not as expected, with what was got.
    pub fn judge(&mut self, step: &Step, scene: &Scene, got: &Got) -> Result<(), String> {
        let seen = scene.seen();
        let fault = self.source(step, scene, got, &seen).or_else(|| {
            content(&step.expect, &scene.clock, got)
                .or_else(|| saw(&step.expect.seen, &scene.clock, seen.last()))
                .or_else(|| never(step, got))
        });
        self.remember(step, scene);
        match fault {
            None => Ok(()),
            Some(fault) => Err(format!(
                "{fault}\n    got {} {:?} {:?}\n    the origin saw {seen:?}",
                got.status, got.fields, got.body
            )),
        }
    }

    /// Keeps what the origin said in a step.
    pub fn remember(&mut self, step: &Step, scene: &Scene) {
        for n in 0..scene.seen().len() {
            let answer = step.answer(n);
            let said = (answer.status.unwrap_or(200), scene.body(&answer));
            self.said.push(said);
        }
    }

    /// Whether it comes from where it should, with that one's status and body.
    fn source(&self, step: &Step, scene: &Scene, got: &Got, seen: &[Asked]) -> Option<String> {
        let expect = &step.expect;
        if let Some(asked) = expect.asked.filter(|asked| *asked != seen.len()) {
            return Some(format!(
                "the origin was asked {} times, not {asked}",
                seen.len()
            ));
        }
        let body = String::from_utf8_lossy(&got.body);
        let whole = expect.status.is_none() && expect.body.is_none() && step.method() != "HEAD";
        let before = self
            .said
            .iter()
            .any(|(status, said)| *status == got.status && *said == body);
        match expect.from {
            From::Origin => from_origin(step, scene, got, seen),
            From::Cache if !seen.is_empty() => Some("the origin was asked".to_owned()),
            From::Validation if !seen.last().is_some_and(conditional) => {
                Some("the origin was not asked with a precondition".to_owned())
            }
            From::Cache | From::Validation | From::Stale if whole && !before => {
                Some("it is no answer that could have been stored".to_owned())
            }
            _ => None,
        }
    }
}

fn from_origin(step: &Step, scene: &Scene, got: &Got, seen: &[Asked]) -> Option<String> {
    let Some(last) = seen.len().checked_sub(1) else {
        return Some("the origin was not asked".to_owned());
    };
    let answer = step.answer(last);
    let status = answer.status.unwrap_or(200);
    if step.expect.status.is_none() && got.status != status {
        return Some(format!("status {}, the origin said {status}", got.status));
    }
    let bodiless = step.method() == "HEAD" || matches!(got.status, 101 | 204 | 304);
    let (said, body) = (scene.body(&answer), String::from_utf8_lossy(&got.body));
    let judged = step.expect.body.is_some() || step.expect.status.is_some() || bodiless;
    (!judged && said != body).then(|| format!("body {body:?}, the origin said {said:?}"))
}

fn conditional(asked: &Asked) -> bool {
    asked.fields.contains_key("if-none-match") || asked.fields.contains_key("if-modified-since")
}

fn content(expect: &Expect, clock: &Clock, got: &Got) -> Option<String> {
    if let Some(status) = expect.status.filter(|status| *status != got.status) {
        return Some(format!("status {}, not {status}", got.status));
    }
    if got.whole == expect.cut {
        return Some(
            if got.whole {
                "the body is whole"
            } else {
                "the body broke off"
            }
            .to_owned(),
        );
    }
    let interim = expect.interim.as_ref();
    if interim.is_some_and(|interim| *interim != got.interim) {
        return Some(format!("interim answers {:?}", got.interim));
    }
    let body = String::from_utf8_lossy(&got.body);
    if let Some(wanted) = expect.body.as_ref().map(|body| clock.fill(body))
        && !matches(&wanted, &body)
    {
        return Some(format!("body {body:?}, not {wanted:?}"));
    }
    fields(&expect.fields, clock, &got.fields)
}

/// What no client may get, whatever the case is about.
fn never(step: &Step, got: &Got) -> Option<String> {
    let several = |lines: &Option<Vec<String>>| lines.as_ref().is_some_and(|all| all.len() > 1);
    let said = step.answer(0);
    let faults = check::faults(&Context {
        method: &Method::from_bytes(step.method().as_bytes()).unwrap_or_default(),
        target: step.target(),
        status: StatusCode::from_u16(got.status).unwrap_or_default(),
        headers: &got.fields,
        cache_status_due: false,
        tags_allowed: false,
        duplicates_allowed: said.fields.0.iter().any(|(_, lines)| several(lines)),
    });
    (!faults.is_empty()).then(|| faults.join("; "))
}

fn saw(wanted: &Seen, clock: &Clock, seen: Option<&Asked>) -> Option<String> {
    let Some(asked) = seen else {
        let something = wanted.method.is_some() || !wanted.fields.0.is_empty();
        return something.then(|| "the origin saw nothing".to_owned());
    };
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    for (wanted, got) in [
        (&wanted.method, &asked.method),
        (&wanted.target, &asked.target),
        (&wanted.body, &body),
    ] {
        if let Some(wanted) = wanted.as_ref().map(|text| clock.fill(text))
            && !matches(&wanted, got)
        {
            return Some(format!("the origin saw {got:?}, not {wanted:?}"));
        }
    }
    fields(&wanted.fields, clock, &asked.fields).map(|fault| format!("at the origin: {fault}"))
}

fn fields(wanted: &Fields, clock: &Clock, got: &HeaderMap) -> Option<String> {
    wanted.0.iter().find_map(|(name, lines)| {
        let value = joined(got, name);
        let wanted = lines.as_ref().map(|lines| clock.fill(&lines.join(", ")));
        let holds = match (&wanted, &value) {
            (None, None) => true,
            (Some(wanted), Some(value)) => matches(wanted, value),
            _ => false,
        };
        (!holds).then(|| format!("{name} is {value:?}, expected {wanted:?}"))
    })
}

/// `>=N`, `<=N`, or a text in which `*` stands for any run of characters.
fn matches(wanted: &str, got: &str) -> bool {
    let bound = |sign: &str| wanted.strip_prefix(sign)?.parse::<i64>().ok();
    let number = got.parse::<i64>().ok();
    if let Some(least) = bound(">=") {
        return number.is_some_and(|number| number >= least);
    }
    if let Some(most) = bound("<=") {
        return number.is_some_and(|number| number <= most);
    }
    // `\*` is an asterisk; it must not be taken for a wild one.
    let (wanted, got) = (wanted.replace("\\*", "\u{1}"), got.replace('*', "\u{1}"));
    let Some((first, rest)) = wanted.split_once('*') else {
        return wanted == got;
    };
    let Some(mut got) = got.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match got.split_once(part) {
            Some((_, after)) => got = after,
            None => return false,
        }
    }
    got.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wanted_values_are_exact_bounded_or_open() {
        for (wanted, got, holds) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b*", "abc", true),
            ("a*c", "ab", false),
            ("ab*b", "ab", false),
            ("bytes */10", "bytes */10", true),
            ("*", "/", true),
            (r"\*", "/", false),
            (r"\*", "*", true),
            (r"bytes \*/10", "bytes */10", true),
            (">=5", "7", true),
            (">=5", "x", false),
            ("<=5", "7", false),
        ] {
            assert_eq!(matches(wanted, got), holds, "{wanted} {got}");
        }
    }
}
