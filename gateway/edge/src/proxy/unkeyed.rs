//! Watches for parts of a request that influence an answer although the key does not cover them: a
//! loader or a response plugin saw them, a request plugin set them for the origin, or the origin
//! got them. Two requests that differ in such a part share an answer, so one client may choose what
//! all others get.
//!
//! This is checked once for each load, after the response was found fit to be stored; it costs a
//! hit nothing. The route's `unkeyed` setting decides what follows.

use std::collections::{BTreeSet, HashSet};

use http::header::{COOKIE, VARY};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

use crate::cache::key::KeyBuf;
use crate::cache::policy::UncacheableReason;
use crate::http::vary::Vary;
use crate::plugin::{RequestReads, SeenField};
use crate::proxy::config::UnkeyedAction;
use crate::proxy::cover::KeyCoverage;
use crate::proxy::metrics::UnkeyedCount;
use crate::proxy::route::Route;

/// The most fields of a route that are remembered, so that each is reported once. There must be a
/// limit, because clients choose the names.
const MOST: usize = 64;

/// How a plugin makes an answer depend on something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PluginInfluence {
    /// A loader or a response plugin sees it.
    Sees,
    /// A request plugin sets it, and the origin gets it.
    Sets,
    /// A key plugin derives the same key without it, and the origin gets it.
    LeavesOut,
}

/// What a route does about unkeyed fields, for one of its plugins.
pub struct UnkeyedWatch {
    pub rule: UnkeyedAction,
    how: PluginInfluence,
    plugin: Box<str>,
    /// Counts the loads that saw something that the key does not cover.
    count: UnkeyedCount,
    /// The fields that were seen so far.
    known: Mutex<HashSet<SeenField>>,
}

impl UnkeyedWatch {
    pub fn new(
        rule: UnkeyedAction,
        how: PluginInfluence,
        plugin: &str,
        count: UnkeyedCount,
    ) -> Self {
        Self {
            rule,
            how,
            plugin: plugin.into(),
            count,
            known: Mutex::default(),
        }
    }

    /// Checks whether a response may be stored under `key` if its plugin has `seen` these fields.
    /// May add to the `Vary` of the response.
    ///
    /// # Errors
    /// If it may not be stored.
    pub fn check(
        &self,
        route: &Route,
        key: &KeyBuf,
        seen: &RequestReads,
        response: &mut HeaderMap,
    ) -> Result<(), UncacheableReason> {
        if self.rule == UnkeyedAction::Allow {
            return Ok(());
        }
        let cover = KeyCoverage::of(route, key, Vary::parse(response));
        let bare: Vec<&SeenField> = seen.fields.iter().filter(|f| !cover.has(f)).collect();
        if !bare.is_empty() {
            self.count.inc();
        }
        for field in &bare {
            self.tell(route, field);
        }
        match self.rule {
            UnkeyedAction::Allow | UnkeyedAction::Warn => Ok(()),
            UnkeyedAction::RefuseStore if bare.is_empty() => Ok(()),
            UnkeyedAction::RefuseStore => Err(UncacheableReason::Unkeyed),
            UnkeyedAction::Vary => self.vary(&cover, &bare, &seen.absent, response),
        }
    }

    /// Checks whether a response may be stored if its origin got parameters that make no difference
    /// to the key. `Vary` cannot name parameters.
    ///
    /// # Errors
    /// If it may not be stored.
    pub fn found(&self, route: &Route, unheld: &RequestReads) -> Result<(), UncacheableReason> {
        if unheld.fields.is_empty() {
            return Ok(());
        }
        self.count.inc();
        for field in &unheld.fields {
            self.tell(route, field);
        }
        self.check_undeclared()
    }

    /// Checks whether the answer of a loader that does not declare what it reads may be stored.
    ///
    /// # Errors
    /// If it may not be stored: the loader has replaced one that did declare its reads.
    pub fn check_undeclared(&self) -> Result<(), UncacheableReason> {
        match self.rule {
            UnkeyedAction::Allow | UnkeyedAction::Warn => Ok(()),
            UnkeyedAction::Vary | UnkeyedAction::RefuseStore => Err(UncacheableReason::Unkeyed),
        }
    }

    /// Lines for `explain`: the unkeyed fields of this request and of earlier ones.
    pub fn explain(&self, route: &Route, key: &KeyBuf, seen: &RequestReads) -> Vec<String> {
        if self.rule == UnkeyedAction::Allow {
            return Vec::new();
        }
        let cover = KeyCoverage::of(route, key, Vary::None);
        let known = self.known.lock();
        let fields: HashSet<&SeenField> = seen.fields.iter().chain(known.iter()).collect();
        let bare = fields.into_iter().filter(|field| !cover.has(field));
        let rule = self.rule.as_str();
        let line = |field: &SeenField| {
            let plugin = &self.plugin;
            let does = match self.how {
                PluginInfluence::Sees => "sees it",
                PluginInfluence::Sets => "sets it for the origin",
                PluginInfluence::LeavesOut => "does not use it for the key, and the origin gets it",
            };
            format!(
                "{field}: plugin {plugin} {does}, but the key does not contain it (unkeyed: {rule})"
            )
        };
        let lines: BTreeSet<String> = bare.map(line).collect();
        lines.into_iter().collect()
    }

    /// Remembers a field when it is first seen, and logs it if the rule is `warn`.
    fn tell(&self, route: &Route, field: &SeenField) {
        let mut known = self.known.lock();
        if known.len() >= MOST || !known.insert(field.clone()) || self.rule != UnkeyedAction::Warn {
            return;
        }
        let does = match self.how {
            PluginInfluence::Sees => "sees",
            PluginInfluence::Sets => "sets for the origin",
            PluginInfluence::LeavesOut => "leaves in the request for the origin",
        };
        tracing::warn!(
            route = &*route.name,
            plugin = &*self.plugin,
            %field,
            "a plugin {does} something that the cache key does not contain: requests that differ \
             in it share one answer; put it into the route's `key` or into the response's `Vary`, \
             or set `unkeyed: vary`, `refuse_store` or `allow`"
        );
    }

    /// Adds the fields to `Vary`, including those that were absent here or that only other requests
    /// had: they select an answer as well.
    fn vary(
        &self,
        cover: &KeyCoverage<'_>,
        bare: &[&SeenField],
        absent: &[SeenField],
        response: &mut HeaderMap,
    ) -> Result<(), UncacheableReason> {
        if bare
            .iter()
            .any(|field| matches!(field, SeenField::Parameter(_)))
        {
            return Err(UncacheableReason::Unkeyed);
        }
        let known = self.known.lock();
        let others = absent.iter().chain(known.iter());
        let fields = others
            .filter(|field| !cover.has(field))
            .chain(bare.iter().copied());
        let names: BTreeSet<&str> = fields
            .filter_map(|field| match field {
                SeenField::Header(name) => Some(name.as_str()),
                SeenField::Cookie(_) => Some(COOKIE.as_str()),
                SeenField::Parameter(_) => None,
            })
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        if let Ok(line) = HeaderValue::from_str(&names.join(", "))
            && !names.is_empty()
        {
            response.append(VARY, line);
        }
        Ok(())
    }
}
