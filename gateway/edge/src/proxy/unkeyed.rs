//! What a loader or a response plugin saw of a request, a request plugin set for the origin, or
//! the origin got, and the key does not cover: two requests that differ in it share an answer,
//! which one client may have made for all the others.
//!
//! Looked at once a load, after the response was found fit to be stored; a hit knows
//! nothing of this. The route's `unkeyed` says what follows.

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

/// Fields of a route that are remembered, so that each is told of once. Clients choose
/// their names.
const MOST: usize = 64;

/// How a plugin makes an answer depend on something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PluginInfluence {
    /// It sees it: a loader, a response plugin.
    Sees,
    /// It sets it, and the origin gets it: a request plugin.
    Sets,
    /// Its key is the same without it, and the origin gets it: a key plugin.
    LeavesOut,
}

/// What a route does about it, for one of its plugins.
pub struct UnkeyedWatch {
    pub rule: UnkeyedAction,
    how: PluginInfluence,
    plugin: Box<str>,
    /// Loads that saw something that the key does not cover.
    count: UnkeyedCount,
    /// What was seen so far.
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

    /// Whether a response whose plugin has `seen` this may be stored under `key`. Its
    /// `Vary` may grow.
    ///
    /// # Errors
    /// When it may not.
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

    /// Whether a response may be stored whose origin got this, which was found to make no
    /// difference to the key. It is parameters alone, which no `Vary` can name.
    ///
    /// # Errors
    /// When it may not.
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

    /// Whether a loader that says nothing of what it reads may have its answer stored.
    ///
    /// # Errors
    /// When it may not: it takes the place of one that did say.
    pub fn check_undeclared(&self) -> Result<(), UncacheableReason> {
        match self.rule {
            UnkeyedAction::Allow | UnkeyedAction::Warn => Ok(()),
            UnkeyedAction::Vary | UnkeyedAction::RefuseStore => Err(UncacheableReason::Unkeyed),
        }
    }

    /// Lines for `explain`: what is seen of this request, and what was seen of others.
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
                PluginInfluence::LeavesOut => "makes no difference by it and the origin gets it",
            };
            format!("{field}: plugin {plugin} {does}, the key does not hold it (unkeyed: {rule})")
        };
        let lines: BTreeSet<String> = bare.map(line).collect();
        lines.into_iter().collect()
    }

    /// Once a field, in the log where nothing else is done about it.
    fn tell(&self, route: &Route, field: &SeenField) {
        let mut known = self.known.lock();
        if known.len() >= MOST || !known.insert(field.clone()) || self.rule != UnkeyedAction::Warn {
            return;
        }
        let does = match self.how {
            PluginInfluence::Sees => "sees",
            PluginInfluence::Sets => "sets for the origin",
            PluginInfluence::LeavesOut => "leaves for the origin",
        };
        tracing::warn!(
            route = &*route.name,
            plugin = &*self.plugin,
            %field,
            "a plugin {does} what the cache key does not hold: who differs in it gets what was made for another; \
             put it into the route's `key` or into the response's `Vary`, or say `unkeyed: vary`, `refuse_store` or `allow`"
        );
    }

    /// What was not there, and what others had, selects an answer as well.
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
