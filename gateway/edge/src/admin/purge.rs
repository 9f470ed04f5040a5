//! `POST /v1/purge`: reads the request, purges, and reports where the purge holds.

use std::time::Duration;

use futures_util::future::try_join_all;
use http::Uri;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::health;
use crate::cache::key::KeyId;
use crate::cache::l2::store::LogNumber;
use crate::cache::purge::{PurgeKind, PurgeOrder, Selector};
use crate::cluster::{self, Cluster, ClusterPurgeReport, NodeReceipt, UnconfirmedReason};
use crate::http::path;
use crate::proxy::{Proxy, UrlPurgeSelectors};
use crate::units;

/// How long an answer waits for the second tier's log.
const RECEIPT: Duration = Duration::from_secs(1);

const EXPECTED: &str = "expected one or more of key, url, prefix, pattern, tag, route (a text or a list of texts), or \"all\": true; and optionally \"soft\": true and \"wait\": \"2s\"";

/// The longest time that a client may wait for the other nodes.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What is asked for.
struct PurgeRequest {
    selectors: Vec<Selector>,
    /// Whether the purge is hard or soft.
    kind: PurgeKind,
    /// How long to wait for the other nodes. None: not at all.
    wait: Option<Duration>,
    /// Notes about what the purge may not reach.
    notes: Vec<String>,
}

/// Purges, and answers with a receipt. The purge holds on this node at once. With a second tier,
/// the answer waits a while for its log, and with `wait` for the other nodes.
///
/// # Errors
/// Describes what is wrong with the request, and what is expected.
pub async fn purge(
    body: &Value,
    proxy: &Proxy,
    cluster: Option<&Cluster>,
) -> Result<Value, String> {
    let PurgeRequest {
        selectors,
        kind,
        wait,
        notes,
    } = read(body, proxy)?;
    let (order, logged, peers) = match (cluster, wait) {
        (Some(cluster), Some(wait)) => {
            let everywhere = cluster.purge_and_wait(&selectors, kind, wait).await;
            let peers = nodes(&everywhere);
            let told = everywhere.purges.into_iter();
            let (orders, logged): (Vec<_>, Vec<_>) = told.map(|t| (t.order, t.logged)).unzip();
            (orders, logged, Some(peers))
        }
        (None, Some(_)) => {
            return Err("wait: there is no event bus, so no other node to wait for".to_owned());
        }
        (_, None) => {
            let (orders, logged) = everywhere(&selectors, kind, proxy);
            (orders, logged, None)
        }
    };
    let order = order.into_iter().max().unwrap_or_default();
    let mut receipt =
        json!({"order": order.value(), "selectors": selectors.len(), "applied": true});
    if let Some(mut l2) = shared(logged.into_iter().flatten()).await {
        if l2["logged"] == false {
            health::add_reason(&mut l2, &proxy.cache.reach());
        }
        receipt["l2"] = l2;
    }
    if let Some(peers) = peers {
        receipt["peers"] = peers;
    }
    if !notes.is_empty() {
        receipt["notes"] = notes.into();
    }
    Ok(receipt)
}

/// Purges here and tells the other nodes. Returns the places in the order of purges, and what is
/// told when the second tier's log has taken them.
fn everywhere(
    selectors: &[Selector],
    kind: PurgeKind,
    proxy: &Proxy,
) -> (Vec<PurgeOrder>, Vec<Option<oneshot::Receiver<LogNumber>>>) {
    let purges = selectors.iter();
    let purges = purges.map(|selector| proxy.cache.purge_everywhere(selector, kind));
    purges.unzip()
}

/// Purges as a request of another cache's API asks for it. Returns the newest place in the order of
/// purges when the second tier's log has taken them, or has had time to.
///
/// # Errors
/// If a text is too long to be told to other nodes.
pub async fn purge_in_dialect(
    selectors: &[Selector],
    kind: PurgeKind,
    proxy: &Proxy,
) -> Result<PurgeOrder, String> {
    if !selectors.iter().all(cluster::can_tell) {
        return Err("a text is too long to publish to other nodes".to_owned());
    }
    let (orders, logged) = everywhere(selectors, kind, proxy);
    shared(logged.into_iter().flatten()).await;
    Ok(orders.into_iter().max().unwrap_or_default())
}

fn read(body: &Value, proxy: &Proxy) -> Result<PurgeRequest, String> {
    let map = body.as_object().ok_or(EXPECTED)?;
    let mut selectors = Vec::new();
    let mut kind = PurgeKind::Hard;
    let mut wait = None;
    let mut notes = Vec::new();
    for (name, value) in map {
        match (name.as_str(), value) {
            ("wait", Value::String(text)) => wait = Some(patience(text)?),
            ("soft", Value::Bool(soft)) => {
                kind = if *soft {
                    PurgeKind::Soft
                } else {
                    PurgeKind::Hard
                }
            }
            ("all", Value::Bool(true)) => selectors.push(Selector::All),
            (_, Value::String(_) | Value::Array(_)) => {
                for text in texts(name, value)? {
                    let more = selectors_of(name, text, proxy)?;
                    selectors.extend(more.selectors);
                    notes.extend(more.note);
                }
            }
            _ => return Err(format!("{name}: {EXPECTED}")),
        }
    }
    match selectors.is_empty() {
        true => Err(EXPECTED.to_owned()),
        false => Ok(PurgeRequest {
            selectors,
            kind,
            wait,
            notes,
        }),
    }
}

/// A text, or a list of them.
fn texts<'a>(name: &str, value: &'a Value) -> Result<Vec<&'a str>, String> {
    let list = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    texts.ok_or_else(|| format!("{name}: expected a text or a list of texts"))
}

fn patience(text: &str) -> Result<Duration, String> {
    let wait: units::ConfigDuration = text.parse().map_err(|error| format!("wait: {error}"))?;
    match wait.0 <= MAX_WAIT {
        true => Ok(wait.0),
        false => Err(format!("wait: {text:?}; expected at most {MAX_WAIT:?}")),
    }
}

/// The part of the receipt about the other nodes. It lists each known node: whether all the purges
/// hold there, the number of the last one in the node's order, how late the node confirmed it, or
/// since when it has been silent. `outcome` is `all`, `some` (some did not confirm), or `unknown`.
fn nodes(everywhere: &ClusterPurgeReport) -> Value {
    let told = &everywhere.purges;
    let names = told.first().map_or(&[][..], |first| &first.nodes);
    let nodes: Vec<Value> = names
        .iter()
        .map(|(name, _)| node(name, everywhere))
        .collect();
    let have_all = nodes.iter().all(|node| node["applied"] == true);
    let outcome = match (&everywhere.unknown, have_all && everywhere.missing == 0) {
        (
            Some(
                UnconfirmedReason::NotPublished(_)
                | UnconfirmedReason::HearsNothing
                | UnconfirmedReason::DoesNotListen,
            ),
            _,
        ) => "unknown",
        (_, false) => "some",
        (Some(UnconfirmedReason::JustJoined), true) => "unknown",
        (None, true) => "all",
    };
    let mut peers = json!({"complete": outcome == "all", "outcome": outcome, "nodes": nodes});
    if let Some(why) = &everywhere.unknown {
        peers["reason"] = why.to_string().into();
    }
    if everywhere.missing > 0 {
        peers["never_heard"] = everywhere.missing.into();
    }
    peers
}

fn node(name: &str, everywhere: &ClusterPurgeReport) -> Value {
    let answers = everywhere.purges.iter().map(|told| {
        let of = told.nodes.iter().find(|(node, _)| node == name);
        of.and_then(|(_, answer)| *answer)
    });
    let answers: Option<Vec<NodeReceipt>> = answers.collect();
    if let Some(answers) = answers {
        return json!({
            "node": name,
            "applied": true,
            "order": answers.iter().map(|answer| answer.order.value()).max(),
            "after_ms": answers.iter().map(|a| a.after).max().map(milliseconds),
        });
    }
    let silent = everywhere.silent.iter().find(|(silent, _)| silent == name);
    match silent {
        Some((_, silence)) => {
            json!({"node": name, "applied": false, "silent_ms": silence.as_millis() as u64})
        }
        None => json!({"node": name, "applied": false}),
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The part of the receipt about the second tier: the highest number that its log gave to the
/// purges, or that the log did not answer in time. None without a second tier.
async fn shared(told: impl Iterator<Item = oneshot::Receiver<LogNumber>>) -> Option<Value> {
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        return None;
    }
    let told = tokio::time::timeout(RECEIPT, try_join_all(told)).await;
    Some(match told {
        Ok(Ok(numbers)) => {
            json!({"logged": true, "number": numbers.iter().max().map(|number| number.value())})
        }
        Ok(Err(_)) | Err(_) => json!({
            "logged": false,
            "note": "it applies on this node; the second tier's log has not accepted it yet, and \
                     this is tried again until it does",
        }),
    })
}

fn selectors_of(name: &str, text: &str, proxy: &Proxy) -> Result<UrlPurgeSelectors, String> {
    if text.is_empty() {
        return Err(format!(
            "{name}: empty; to purge everything say \"all\": true"
        ));
    }
    let asked = match name {
        "url" => url(text, proxy)?,
        _ => UrlPurgeSelectors {
            selectors: selectors(name, text)?,
            ..UrlPurgeSelectors::default()
        },
    };
    match asked.selectors.iter().all(cluster::can_tell) {
        true => Ok(asked),
        false => Err(format!(
            "{name}: too long to publish to other nodes, which accept 64 KiB of text (each of * ? \
             \\ in a prefix counts twice)"
        )),
    }
}

fn selectors(name: &str, text: &str) -> Result<Vec<Selector>, String> {
    match name {
        "key" => match KeyId::parse(text) {
            Some(key) => Ok(vec![Selector::Key(key)]),
            None => Err(format!(
                "key: {text:?} is not 16 hexadecimal digits, as `explain` shows them"
            )),
        },
        "prefix" => Ok(Selector::prefixes(text)),
        "pattern" => Ok(Selector::patterns(text)),
        "tag" => Ok(vec![Selector::Tag(text.to_owned())]),
        "route" => Ok(vec![Selector::Route(text.to_owned())]),
        _ => Err(format!("{name}: {EXPECTED}")),
    }
}

fn url(text: &str, proxy: &Proxy) -> Result<UrlPurgeSelectors, String> {
    let before_fragment = text.split('#').next().unwrap_or(text);
    let uri: Uri = path::text::whole(before_fragment)
        .parse()
        .map_err(|error| format!("url: {text:?}: {error}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!(
            "url: {text:?} is not absolute; expected http://host/path"
        ));
    };
    let reached = proxy.generation().by_url(scheme, authority.as_str(), &uri);
    match reached.selectors.is_empty() {
        true => {
            let refusal = reached
                .refusal
                .map(|why| format!("it is refused (400): {why}"));
            let why = refusal.or(reached.note);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            Err(format!("url: no route caches {text:?}{why}"))
        }
        false => Ok(reached),
    }
}
